"""Critics as a client trains them: the WGAN-GP loss, and its gradient in closed form."""
