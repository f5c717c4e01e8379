"""What a training will see and need, before it runs."""
