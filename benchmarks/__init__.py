"""Speed against other packages, measured in one run and reported as ratios."""
