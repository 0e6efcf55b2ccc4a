"""Public priors: pool of images, features, and networks to start from."""
