"""What a pose model is and how it runs, in process. Knows nothing of HTTP or of training."""
