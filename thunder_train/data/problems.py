"""The problems of one file, equal ones grouped: 240 equal lines are one line with their first places and count.

Input: (what, where, hint) of each problem.  Output: one error that lists them.
"""

from thunder_train import SHOWN_PROBLEMS, ThunderError, raise_all

SHOWN_PLACES = 3
"""Places that a group of equal problems names."""


class Problems:
    """Problems of one file: the first few groups of equal ones are kept, the others counted, however many there are.

    path: the file; after the first place of a group, places are shown without it.
    """

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.first: dict[tuple[str, str], _Group] = {}
        self.more = 0

    def add(self, what: str, where: str, hint: str) -> None:
        """Note one problem."""
        group = self.first.get((what, hint))
        if group is not None:
            group.add(where)
        elif len(self.first) < SHOWN_PROBLEMS:
            self.first[what, hint] = _Group(where)
        else:
            self.more += 1

    def keep(self, problem: ThunderError) -> None:
        """Note one problem that is an error already."""
        self.add(problem.what, problem.where, problem.hint)

    def raise_all(self) -> None:
        """Raise one error that holds them all; do nothing when there is none."""
        listed = [ThunderError(what, group.shown(self.path), hint) for (what, hint), group in self.first.items()]
        raise_all(listed + ([ThunderError(f"... and {self.more} more")] if self.more else []))


class _Group:
    """Places of equal problems."""

    def __init__(self, where: str) -> None:
        self.places, self.more = [where], 0

    def add(self, where: str) -> None:
        if where == self.places[-1]:
            return
        if len(self.places) < SHOWN_PLACES:
            self.places.append(where)
        else:
            self.more += 1

    def shown(self, path: str) -> str:
        """`x.jsonl:1, 2, 3 and 237 more`."""
        others = [place.removeprefix(path).lstrip(": ") if path else place for place in self.places[1:]]
        return ", ".join([self.places[0], *others]) + (f" and {self.more} more" if self.more else "")
