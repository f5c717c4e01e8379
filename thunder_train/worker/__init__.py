"""What runs on every rank. Only this folder imports mlx."""
