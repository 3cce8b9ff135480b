"""What was fixed before the data: the arms, the contrasts and the rules that decide them."""
