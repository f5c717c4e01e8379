"""The problems of one file, equal ones grouped: 240 equal lines are one line with their first places and count.

Input: (what, where, hint) of each problem.  Output: one error that lists them.
"""

import re

from thunder_train import SHOWN_PROBLEMS, ThunderError, raise_all

WRONG_TYPE = re.compile(r"Expected `(.+)`, got `(.+)` - at `\$\.(.+?)((?:\[\.\.\.\])*)`")
"""What the decoder says of a value of a wrong type, in a field or inside it."""
TYPES = {
    "str": "a text",
    "int": "a number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
"""Types as the decoder calls them, in words."""
HYPOTHESES = 'map it to hypotheses, or its first item: asr_text = "FIELD[0]"'
"""What to do about a list where the text of the best hypothesis is needed."""
SHOWN_PLACES = 3
"""Places that a group of equal problems names."""


def in_words(error: str) -> tuple[str, str]:
    """What is wrong according to the decoder, as `x is a text, not a number`, and a hint."""
    match = WRONG_TYPE.fullmatch(error)
    if not match:
        return error, "correct the row"
    types, given, path, is_inside = match.groups()
    needed = [each for each in types.split(" | ") if each != "null"]
    words = " or ".join(dict.fromkeys(TYPES.get(each, each) for each in needed))
    hint = "correct the row"
    if given == "str" and {"int", "float"} & {*needed}:
        hint = "write it without quotes"
    elif given in ("int", "float") and "str" in needed:
        hint = "write it in quotes"
    elif given == "array" and path == "asr_text":
        hint = HYPOTHESES
    return f"{'a member of ' if is_inside else ''}{path} is {TYPES.get(given, given)}, not {words}", hint


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
        is_row = self.places[0].startswith(f"{path}: row ")
        prefix = f"{path}: row " if is_row else path
        others = [place.removeprefix(prefix).removeprefix(path).lstrip(": ") for place in self.places[1:]]
        return ", ".join([self.places[0], *others]) + (f" and {self.more} more" if self.more else "")
