"""Rows to tokens to batches, the same for any number of ranks."""
