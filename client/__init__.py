"""What runs on a device: a relay to the guard."""
