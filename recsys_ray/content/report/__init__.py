"""What item vectors are worth, as numbers and as a page a person can read."""
