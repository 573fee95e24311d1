"""Makes the weights that are served."""
