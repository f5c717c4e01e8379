"""How much of a Mac's memory a training can use."""

METAL_SHARE = 2 / 3
"""Part of all memory that Metal recommends as a process's working set, where mlx cannot be asked: 10.67 of 16 GB."""
