"""The generators that this one is compared with; each trains on images that lie in one place."""
