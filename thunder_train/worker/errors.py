"""Errors that worker programs exit with a status of their own for."""

from thunder_train import ThunderError


class RanksLostError(ThunderError):
    """The other ranks, or the links to them, are gone. Not a mistake of the user's, and another attempt may succeed."""
