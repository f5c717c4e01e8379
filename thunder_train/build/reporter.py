"""What `doit` prints as it runs, and the lock that keeps two of them apart.

doit's own marks stay: `.  task` ran, `-- task` was up to date. Ours: `+  task` was restored from the run cache.
"""

import fcntl
import os
import shutil
from typing import IO, Any

from doit import Globals
from doit.reporter import ConsoleReporter

from thunder_train.build import stage


class Reporter(ConsoleReporter):  # type: ignore[misc]  # doit ships no types
    """doit's console reporter with our mark; holds the project's lock from the first look to the last record."""

    def initialize(self, tasks: dict[str, Any], selected_tasks: list[str]) -> None:
        """Wait until no other doit builds here. Utilities, as the test suite, need no lock."""
        super().initialize(tasks, selected_tasks)
        self._lock: IO[str] | None = None
        metas = [tasks[name].meta or {} for name in _needed(tasks, selected_tasks)]
        self._caches = {meta["cache"] for meta in metas if "cache" in meta}
        if self._caches:
            self._lock = self._wait_for_turn()
            shutil.rmtree(stage.STAGING, ignore_errors=True)  # what a killed doit left half made

    def execute_task(self, task: Any) -> None:
        """Say what begins: a stage that runs, or one whose outputs are known."""
        known = task.meta and "stage" in task.meta and stage.is_restorable(task.meta["stage"], task.meta["cache"])
        if known:
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
        stage.STATE.mkdir(exist_ok=True)
        lock = open(stage.STATE / "lock", "a+", encoding="utf-8")  # noqa: SIM115  (held until the run ends)
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
    """The selected tasks and all that they wait for."""
    found: set[str] = set()
    waiting = list(selected)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += tasks[name].task_dep
    return found


def telling(command: str, name: str, subject: Any, *params: dict[str, Any]) -> dict[str, Any]:
    """A task that looks, tells and is never up to date: `<command>_task` of actions.py, with --json."""

    def tell(as_json: bool, rows: int = 0) -> Any:
        from thunder_train.cli import tasks as actions  # late: a no-op must not pay for it

        action = getattr(actions, f"{command}_task")
        return action(subject, as_json, rows) if params else action(subject, as_json)

    as_json = {"name": "as_json", "long": "json", "type": bool, "default": False}
    actions = {"actions": [tell], "params": [as_json, *params], "uptodate": [False], "io": {"capture": False}}
    return {"basename": command, "name": name, **actions}
