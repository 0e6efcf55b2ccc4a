"""Federated GS-WGAN: private synthetic images from data that never leaves its writers."""
