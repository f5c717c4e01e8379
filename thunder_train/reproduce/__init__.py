"""The run's manifest, comparing two runs, and making a run again."""
