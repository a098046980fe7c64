"""What this machine has, how fast it is, and the weights that it needs."""
