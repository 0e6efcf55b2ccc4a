"""What a generator is worth, measured at the end of a run on held-out real images."""
