"""A developers' command: prove that changed code gives the same numbers, or raise a stage's revision."""
