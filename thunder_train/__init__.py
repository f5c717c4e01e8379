"""Thunder Train: recipes in, verified LoRA adapters out. This leaf holds what every module may import."""

__version__ = "0.1.0"


class ThunderError(Exception):
    """A mistake of the user's or of their machines, told in one line: where it is, what is wrong, how to mend it.

    what: the fact, as a sentence without a full stop.  where: `file: key`, a path, or a host.
    mend: the edit or command that mends it.  The text is `where: what; mend`.
    """

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__((f"{where}: " if where else "") + what + (f"; {hint}" if hint else ""))


def raise_all(problems: list[ThunderError]) -> None:
    """Raise one error that holds every problem, a line each; do nothing when there is none."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ThunderError("\n".join(str(problem) for problem in problems))
