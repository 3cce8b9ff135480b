"""What makes the report: the plan of what needs what, its keys, its cost, and the study that computes it."""
