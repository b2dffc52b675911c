"""What the matcher is made of."""
