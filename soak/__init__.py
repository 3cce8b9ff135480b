"""What happens to a report when things go wrong: `python -m soak` breaks it on purpose and prints what survived."""
