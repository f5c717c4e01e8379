"""Who says a line: its name goes before the line while several stages run at once, each in a thread of its own."""

import contextlib
import sys
import threading
from collections.abc import Iterator

_here = threading.local()
_printing = threading.Lock()


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """Put a name before the lines that this thread says, and those of the programs that it runs; "": none."""
    before = name_here()
    _here.name = name
    try:
        yield
    finally:
        _here.name = before


def name_here() -> str:
    """The name of this thread; "" without one."""
    name: str = getattr(_here, "name", "")
    return name


def say(line: str, name: str | None = None, is_error: bool = False) -> None:
    """Print a whole line after the name of its speaker: this thread, unless another name is given."""
    name = name_here() if name is None else name
    with _printing:
        print(f"{name} | {line}" if name else line, file=sys.stderr if is_error else sys.stdout, flush=True)
