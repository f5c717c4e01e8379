"""doit's commands where they need this project's knowledge: run, clean and dumpdb. Their options stay doit's."""

import functools
import os
import subprocess
from pathlib import Path
from pprint import pformat
from typing import Any

from doit.cmd_clean import Clean as DoitClean
from doit.cmd_dumpdb import DumpDB as DoitDumpDB
from doit.cmd_run import Run as DoitRun

from thunder_train.build import lock
from thunder_train.build.run_cache import RunCache
from thunder_train.build.state import DurableState, records
from thunder_train.build.turns import TURNS
from thunder_train.core import caller, paths


class Run(DoitRun):  # type: ignore[misc]  # doit ships no types
    """doit run. With -a nothing is restored: each stage runs."""

    name = "run"

    def execute(self, params: Any, args: list[str]) -> int:
        """Run the tasks; the output file is a path from the caller's folder."""
        RunCache.is_read = not params["always"]
        if isinstance(params["outfile"], str):
            params["outfile"] = caller.path(params["outfile"])
        status: int = super().execute(params, args)
        return status

    @functools.wraps(DoitRun._execute)  # doit reads the names of its parameters
    def _execute(self, *args: Any, **options: Any) -> int:
        state = self.dep_manager.backend
        if not isinstance(state, DurableState):  # another project of this environment, with doit's own memory
            return super()._execute(*args, **options)  # type: ignore[no-any-return]
        TURNS.jobs = options["num_process"]
        # of doit's tasks the ones that only name others have subtasks, the ones that only show something always run
        state.build(
            {task.name for task in self.task_list if not task.has_subtask and (False, None, None) not in task.uptodate}
        )
        try:
            status: int = super()._execute(*args, **options)
            return status
        finally:
            if lock.is_held(Path(paths.STATE)):
                for cache in {task.meta["cache"] for task in self.task_list if "cache" in (task.meta or {})}:
                    cache.trim()
                lock.release(Path(paths.STATE))


class Clean(DoitClean):  # type: ignore[misc]
    """doit clean, which leaves committed files alone."""

    name = "clean"
    doc_description = (
        f"{DoitClean.doc_description} Files that git tracks stay, and so do {' and '.join(paths.RECORDS)}, "
        "which are there to be committed."
    )

    def clean_tasks(self, tasks: list[Any], dryrun: bool, cleanforget: bool) -> None:
        """Remove the targets of tasks, except committed ones."""
        if not isinstance(self.dep_manager.backend, DurableState):
            super().clean_tasks(tasks, dryrun, cleanforget)
            return
        if not dryrun:
            self.dep_manager.backend.keep_others_out()
        tracked = tracked_files()
        for task in tasks:
            kept = [path for path in task.targets if os.path.basename(path) in paths.RECORDS or path in tracked]
            for path in filter(os.path.exists, kept):
                self.outstream.write(f"{task.name} - keeping file '{path}'\n")
            task.targets = [path for path in task.targets if path not in kept]
        super().clean_tasks(tasks, dryrun, cleanforget)


class DumpDB(DoitDumpDB):  # type: ignore[misc]
    """doit dumpdb: all that doit remembers, task by task."""

    name = "dumpdb"

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        """Print every record. It changes nothing."""
        own = paths.MEMORY
        is_given = "dep_file" in opt_values._non_default_keys  # type: ignore[attr-defined]  # a dict of doit's own
        if is_given or not os.path.exists("thunder.toml"):
            own = opt_values["dep_file"]
        if not own.endswith(".sqlite"):
            super().execute(opt_values, pos_args)
            return 0
        for name, record in records(own):
            print(f"{name} -> {pformat(record, indent=4, width=100)}")
        return 0


def tracked_files() -> set[str]:
    """Files below this folder that git tracks; none where git does not answer."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=False)
    except OSError:
        return set()
    return {os.fsdecode(name) for name in done.stdout.split(b"\0") if name}
