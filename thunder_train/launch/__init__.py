"""Starts the ranks of a training, follows them and ends them together."""
