"""Whose turn it is while `doit -n` runs several tasks: a machine trains one model at a time, unless told otherwise.

Two trainings on one machine are each more than twice as slow, and may not fit its memory. Stages that start no ranks
never wait.
"""

import contextlib
import threading
from collections.abc import Iterator

from thunder_train import ThunderError
from thunder_train.core import process, speaker

LOOK_EVERY_S = 0.2
"""Seconds between two looks for a signal, which reaches the main thread alone."""


class Turns:
    """Which stages have ranks on which machines. at_once: stages that may have some on one machine."""

    def __init__(self, at_once: int = 1) -> None:
        self.at_once = at_once
        self.jobs = 1
        """Tasks that doit may run at once: its -n."""
        self._free = threading.Condition()
        self._machines: dict[str, tuple[str, ...]] = {}

    @contextlib.contextmanager
    def of(self, stage: str, machines: tuple[str, ...]) -> Iterator[None]:
        """A turn on all machines at once. Waits for it, and says for whom. Raises ThunderError after a signal."""
        if not machines:
            yield
            return
        with self._free:
            waits_for = ""
            while other := self._in_the_way(machines):
                if other != waits_for:
                    speaker.say(f"{stage} waits until {other} has ended")
                waits_for = other
                self._free.wait(LOOK_EVERY_S)
                if process.is_interrupted.is_set():
                    raise ThunderError("interrupted before it began", where=stage)
            self._machines[stage] = machines
        try:
            yield
        finally:
            with self._free:
                del self._machines[stage]
                self._free.notify_all()

    def _in_the_way(self, machines: tuple[str, ...]) -> str:
        """A stage whose end could free a machine that is full; "" if none is."""
        for machine in machines:
            stages = [stage for stage, theirs in self._machines.items() if machine in theirs]
            if len(stages) >= self.at_once:
                return stages[0]
        return ""


TURNS = Turns()
"""Of this process."""
