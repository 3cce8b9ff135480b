"""Speed, measured side by side in one run: against other packages, against theory, against this machine's own rates."""
