"""Start the ranks of a training, follow them and end them together."""
