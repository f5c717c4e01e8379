"""Reports about a training before it runs: its tokens, memory and time."""
