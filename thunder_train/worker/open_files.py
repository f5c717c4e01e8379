"""The limit of open files, which mlx_lm sets as it is imported: one that the system does not allow ends no program."""

import resource

_set_limits = resource.setrlimit


def allow_a_lower_limit() -> None:
    """From now on raise a limit as far as the hard limit allows. mlx_lm asks for 4096 files; a training opens few."""
    resource.setrlimit = _as_far_as_allowed


def _as_far_as_allowed(kind: int, limits: tuple[int, int]) -> None:
    try:
        _set_limits(kind, limits)
    except ValueError:
        hard = resource.getrlimit(kind)[1]
        _set_limits(kind, (min(limits[0], hard), hard))
