"""Scores, gates and the promotion decision."""
