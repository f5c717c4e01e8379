"""What `doit` prints as it runs, and the lock that lets one doit at a time build in a project.

doit's own marks stay: `.  task` ran, `-- task` was up to date. Ours: `+  task` was restored from the run cache.
"""

import fcntl
import os
import shutil
from typing import IO, Any

from doit import Globals
from doit.reporter import ConsoleReporter

from thunder_train.build import stage
from thunder_train.core import paths


class Reporter(ConsoleReporter):  # type: ignore[misc]  # doit ships no types
    """doit's console reporter with our mark. It holds the project's lock until every record is written."""

    def initialize(self, tasks: dict[str, Any], selected_tasks: list[str]) -> None:
        """Wait until no other doit builds here. A task without a stage, such as the test suite, needs no lock."""
        super().initialize(tasks, selected_tasks)
        self._lock: IO[str] | None = None
        metas = [tasks[name].meta or {} for name in _needed(tasks, selected_tasks)]
        self._caches = {meta["cache"] for meta in metas if "cache" in meta}
        if self._caches:
            self._lock = self._wait_for_turn()
            shutil.rmtree(paths.STAGING, ignore_errors=True)  # unfinished targets of a killed doit

    def execute_task(self, task: Any) -> None:
        """Print which task begins: one that runs, or one that the run cache restores."""
        if "stage" in (task.meta or {}) and stage.is_restorable(task.meta["stage"], task.meta["cache"]):
            self.write(f"+  {task.title()}\n")
        else:
            super().execute_task(task)

    def complete_run(self) -> None:
        """End of the run: trim the run cache and let the next doit in."""
        super().complete_run()
        if self._lock:
            for cache in self._caches:
                cache.trim()
            self._lock.close()

    def _wait_for_turn(self) -> IO[str]:
        os.makedirs(paths.STATE, exist_ok=True)
        lock = open(f"{paths.STATE}/lock", "a+", encoding="utf-8")  # noqa: SIM115  (held until the run ends)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            self.write(f"another doit (process {lock.read().strip()}) builds here; waiting for it to end\n")
            self.outstream.flush()
            fcntl.flock(lock, fcntl.LOCK_EX)
            Globals.dep_manager.backend.reload()
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        return lock


def _needed(tasks: dict[str, Any], selected: list[str]) -> set[str]:
    """The selected tasks and all tasks before them."""
    needed: set[str] = set()
    waiting = list(selected)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += tasks[name].task_dep
    return needed
