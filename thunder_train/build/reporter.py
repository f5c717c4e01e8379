"""What `doit` prints as it runs.

doit's own marks stay: `.  task` ran, `-- task` was up to date. Ours: `+  task` was restored from the run cache.
"""

from typing import Any

from doit.reporter import ConsoleReporter

from thunder_train.build import stage


class Reporter(ConsoleReporter):  # type: ignore[misc]  # doit ships no types
    """doit's console reporter with our mark."""

    def execute_task(self, task: Any) -> None:
        """Print which task begins: one that runs, or one that the run cache restores."""
        if "stage" in (task.meta or {}) and stage.is_restorable(task.meta["stage"], task.meta["cache"]):
            self.write(f"+  {task.title()}\n")
        else:
            super().execute_task(task)
