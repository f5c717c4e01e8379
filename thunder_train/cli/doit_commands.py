"""doit's commands where they need this project's knowledge: run, clean and dumpdb. Their options stay doit's."""

import os
import sqlite3
import subprocess
from pprint import pformat
from typing import Any

from doit.cmd_base import Command, opt_depfile
from doit.cmd_clean import Clean as DoitClean
from doit.cmd_run import Run as DoitRun
from doit.exceptions import InvalidCommand

from thunder_train.build.run_cache import RunCache
from thunder_train.build.state import records
from thunder_train.core import caller, paths

RECORDS = tuple(os.path.basename(path) for path in (paths.run_manifest("x"), paths.model_lock("x")))
"""Targets that are committed: a lock pins the base model, and a manifest is what another build is compared with."""


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


class Clean(DoitClean):  # type: ignore[misc]
    """doit clean, which leaves committed files alone."""

    name = "clean"
    doc_description = (
        f"{DoitClean.doc_description} Files that git tracks stay, and so do {' and '.join(RECORDS)}, "
        "which are there to be committed."
    )

    def clean_tasks(self, tasks: list[Any], dryrun: bool, cleanforget: bool) -> None:
        """Remove the targets of tasks, except committed ones."""
        tracked = _tracked()
        for task in tasks:
            kept = [path for path in task.targets if os.path.basename(path) in RECORDS or path in tracked]
            for path in filter(os.path.exists, kept):
                self.outstream.write(f"{task.name} - keeping file '{path}'\n")
            task.targets = [path for path in task.targets if path not in kept]
        super().clean_tasks(tasks, dryrun, cleanforget)


class DumpDB(Command):  # type: ignore[misc]
    """doit dumpdb: all that doit remembers, task by task."""

    name = "dumpdb"
    doc_purpose = "dump dependency DB"
    cmd_options = (opt_depfile,)

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        """Print every record. It changes nothing."""
        path = opt_values["dep_file"]
        try:
            for name, record in records(path):
                print(f"{name} -> {pformat(record, indent=4, width=100)}")
        except sqlite3.Error as error:
            raise InvalidCommand(f"{path}: {error}; doit sets a damaged file aside when it builds") from None
        return 0


def _tracked() -> set[str]:
    """Files below this folder that git tracks; none where git does not answer."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=False)
    except OSError:
        return set()
    return {os.fsdecode(name) for name in done.stdout.split(b"\0") if name}
