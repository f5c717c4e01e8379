"""The training loop and all that decides its numbers."""
