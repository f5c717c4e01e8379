"""The folder in which a person called ./doit, and paths as given there; ./doit itself runs in the project's folder."""

import os

VARIABLE = "THUNDER_CALLER"
"""How ./doit passes that folder on."""

_folder = os.environ.pop(VARIABLE, "")  # removed: a doit that this one starts has another caller


def was_in(place: str) -> None:
    """The caller's folder, for a program that is not started by ./doit."""
    global _folder
    _folder = _folder or place


def folder() -> str:
    """The caller's folder; the current one if nobody named another."""
    return _folder or os.getcwd()


def path(given: str) -> str:
    """The same file as a path from the current folder; absolute if it lies outside of it."""
    full = os.path.join(folder(), given)
    here = os.path.relpath(full)
    return full if here.startswith("..") else here
