"""Thunder Train trains LoRA adapters from declarative recipes. The root holds only what every module may import."""

import os

__version__ = "0.1.0"

PROGRAM = "THUNDER_PROGRAM"
"""The variable that says how the user starts doit: ./doit in a clone of this repository, thunder or doit elsewhere."""

SHOWN_PROBLEMS = 20
"""Maximum number of problems that raise_some lists."""


class ThunderError(Exception):
    """A mistake of the user or a fault of their machines, with the text `where: what; hint`.

    what: the fact, as a sentence without a full stop.  where: `file: key`, a path, or a host.
    hint: the edit or command that corrects it; in `./doit data:x` as the user would start it.
    parts: the errors of which it was made, if of several.
    """

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        program = f"`{os.environ.get(PROGRAM, './doit')}"
        self.what, self.where, self.hint = what.replace("`./doit", program), where, hint.replace("`./doit", program)
        super().__init__((f"{where}: " if where else "") + self.what + (f"; {self.hint}" if hint else ""))
        self.parts: tuple[ThunderError, ...] = ()

    @property
    def problems(self) -> "tuple[ThunderError, ...]":
        """The errors that this one holds, or itself."""
        return self.parts or (self,)


def raise_all(problems: list[ThunderError]) -> None:
    """Raise one error that holds every problem, one per line; do nothing if there is none."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        error = ThunderError("\n".join(str(problem) for problem in problems))
        error.parts = tuple(part for problem in problems for part in problem.problems)
        raise error


def raise_some(problems: list[ThunderError]) -> None:
    """Raise one error as raise_all does, but list only the first SHOWN_PROBLEMS and count the others."""
    more = len(problems) - SHOWN_PROBLEMS
    raise_all(problems[:SHOWN_PROBLEMS] + ([ThunderError(f"... and {more} more")] if more > 0 else []))
