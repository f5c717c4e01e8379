"""`python -m proof [--raise STAGE]`: bring thunder_train/core/revisions.json up to date with the code.

A stage whose code changed is proven: a fixed matrix of small runs gives the same bits with the code of the commit in
which revisions.json last changed. A stage that is raised gets a new revision instead; users make its outputs again.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from proof import matrix
from thunder_train import ThunderError
from thunder_train.core import files, paths, revisions
from thunder_train.core.stat_cache import StatCache

PROJECT = Path(__file__).resolve().parent.parent
STATS = StatCache(PROJECT / paths.STATS)
Table = dict[str, dict[str, Any]]
"""Content of revisions.json."""
Differ = Callable[[Path, str, Sequence[str]], list[str]]
"""(project, commit, stages to prove) -> outputs that differ between the commit's code and the project's."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 up to date, 1 another number, 2 it could not be proven."""
    parser = argparse.ArgumentParser(prog="python -m proof", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--raise", dest="raised", action="append", default=[], choices=sorted(revisions.CODE))
    raised = parser.parse_args(arguments).raised
    try:
        commit, before = committed(PROJECT)
        table, to_prove = renewed(before, revisions.hashes(STATS), raised)
        if to_prove:
            differing = matrix.differences(PROJECT, commit, to_prove)
            if differing:
                print("\n".join([*differing, refusal(commit, to_prove)]), file=sys.stderr)
                return 1
    except ThunderError as error:
        print(error, file=sys.stderr)
        return 2
    files.write_json(revisions.FILE, table)
    print("\n".join(summary(before, table, to_prove)))
    return 0


def committed(project: Path) -> tuple[str, Table]:
    """The commit in which revisions.json last changed, and what it says there; "" and nothing before the first."""
    name = revisions.FILE.relative_to(PROJECT)
    commit = _git(project, "log", "-1", "--format=%H", "--", str(name)).strip()
    return commit, json.loads(_git(project, "show", f"{commit}:{name}")) if commit else {}


def renewed(before: Table, code: dict[str, str], raised: Sequence[str]) -> tuple[Table, list[str]]:
    """The new content of revisions.json, and the stages for which it is true only if no number changed.

    before: the committed content; code: {stage: hash of its code now}; raised: stages whose numbers changed.
    """
    unknown = [stage for stage in code if stage not in before and stage not in raised]
    if unknown:
        hint = " ".join(f"--raise {stage}" for stage in unknown)
        raise ThunderError(f"no commit has a revision of {', '.join(unknown)}", revisions.FILE.name, f"add {hint}")
    table = {}
    for stage, now in code.items():
        earlier = before.get(stage, {"revision": 0})
        table[stage] = {"revision": earlier["revision"] + (stage in raised), "code": now}
    return table, [stage for stage in code if stage not in raised and before[stage]["code"] != code[stage]]


def refusal(commit: str, stages: Sequence[str]) -> str:
    """What is said when a number changed."""
    raising = " ".join(f"--raise {stage}" for stage in stages)
    return (
        f"{', '.join(stages)}: these outputs are not those of commit {commit[:12]}, so revisions.json stays as it is; "
        f"if that is meant, raise the stage that changed: python -m proof {raising}"
    )


def summary(before: Table, table: Table, proven: Sequence[str]) -> list[str]:
    """What was done, a line for each stage."""
    lines = []
    for stage, entry in table.items():
        earlier, number = before.get(stage, {"revision": 0})["revision"], entry["revision"]
        if number != earlier:
            lines.append(f"{stage}: raised to revision {number}")
        else:
            lines.append(f"{stage}: revision {number}, {'proven' if stage in proven else 'unchanged'}")
    return lines


def _git(project: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=project, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ThunderError(f"git {words[0]}: {done.stderr.strip()}", str(project), "run it in a clone of the project")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
