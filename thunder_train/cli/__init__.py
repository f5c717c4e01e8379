"""Commands and utility tasks of doit."""
