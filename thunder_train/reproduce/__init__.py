"""The manifest of a run, comparing two runs, and reproducing a run."""
