"""Options after words, as people type them: doit itself takes `push --to X NAME`, and not `push NAME --to X`."""

import getopt
from typing import Any


def options_first(words: list[str], parser: Any) -> list[str]:
    """The words of a command with its options before the others. parser: doit's. What it does not know stays."""
    try:
        options, others = getopt.gnu_getopt(words, parser.get_short(), parser.get_long())
    except getopt.GetoptError:
        return words  # doit says what is wrong
    return [
        *(f"{name}={value}" if name.startswith("--") and value else name + value for name, value in options),
        *others,
    ]


class AnyOrder:
    """A command whose options may stand anywhere among its words."""

    cmdparser: Any

    def parse_execute(self, in_args: list[str]) -> Any:
        """Run the command with its options first."""
        return super().parse_execute(options_first(in_args, self.cmdparser))  # type: ignore[misc]  # doit's Command
