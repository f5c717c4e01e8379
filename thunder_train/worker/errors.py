"""Errors with an exit status of their own. Apart from ranks.py, so that bootstrap.py can catch them without mlx."""

from thunder_train import ThunderError


class RanksLostError(ThunderError):
    """The other ranks, or the links to them, are lost. Not a user's mistake: another attempt may succeed."""
