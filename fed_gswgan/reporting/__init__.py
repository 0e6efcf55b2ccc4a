"""What a run writes down: rounds, pictures, checkpoints, the summary."""
