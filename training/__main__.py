"""`python -m training`, as torchrun starts it."""

from training.cli import app

app()
