"""The parameters of a study, and values as people give them."""
