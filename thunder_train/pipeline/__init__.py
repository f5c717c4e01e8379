"""The task graph: what each stage reads, makes and does."""
