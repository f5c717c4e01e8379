"""`doit reproduce` and `doit compare` as people and machines call them, and how both are shown: tables and JSON."""

import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doit.cmd_base import Command

from thunder_train import ThunderError
from thunder_train.core import console, files, process
from thunder_train.core.text import printable_lines
from thunder_train.reproduce import compare, manifest
from thunder_train.reproduce.compare import ABSENT, DIFFERENT, IDENTICAL, IMPOSSIBLE, Verdict
from thunder_train.reproduce.reproduce import reproduce

JSON = {"name": "as_json", "long": "json", "type": bool, "default": False, "help": "one line for machines"}
STATUS = {DIFFERENT: 1, IMPOSSIBLE: 2}
"""Exit statuses of `doit reproduce`; a run that was reproduced gives 0."""
MISTAKE = 3
SHA256 = re.compile("[0-9a-f]{64}")
INTERRUPTED = 128 + signal.SIGINT
SHOWN = 40
"""Most rows of a table; --json has all."""


class Reproduce(Command):  # type: ignore[misc]  # doit ships no types
    """doit reproduce: make the run of any manifest again."""

    name = "reproduce"
    doc_purpose = "make the run of a manifest again in a clean folder and compare every bit"
    doc_usage = "-m PATH"
    doc_description = "Exit status: 0 identical or equivalent, 1 different, 2 impossible, 3 no manifest to rely on."
    cmd_options = (
        {"name": "manifest", "short": "m", "long": "manifest", "type": str, "default": "", "help": "a manifest.json"},
        JSON,
    )

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        """Print the verdict and return the exit status."""
        signal.signal(signal.SIGTERM, process.interrupt)
        try:
            if pos_args or not opt_values["manifest"]:
                hint = "`doit reproduce -m PATH`, or `doit reproduce:NAME` for a recipe"
                raise ThunderError("needs one manifest", "doit reproduce", hint)
            verdict = reproduce(Path(opt_values["manifest"]), Path())
        except ThunderError as error:
            print(printable_lines(str(error)), file=sys.stderr)
            return MISTAKE
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED
        show(verdict, opt_values["as_json"])
        return STATUS.get(verdict.word, 0)


class Compare(Command):  # type: ignore[misc]
    """doit compare: what differs between two runs."""

    name = "compare"
    doc_purpose = "show what differs between two runs, side by side"
    doc_usage = "A B"
    doc_description = "A and B are recipes that have been built, or paths of manifests."
    cmd_options = (JSON,)

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        """Print every fact that differs and return the exit status."""
        try:
            words = [word for word in pos_args if word != "--json"]  # doit reads options only before A
            if len(words) != 2:
                raise ThunderError("needs two runs", "doit compare", "`doit compare A B`, recipes or manifests")
            paths = [_manifest_path(word) for word in words]
            left, right = (manifest.read(path) for path in paths)
        except ThunderError as error:
            print(printable_lines(str(error)), file=sys.stderr)
            return MISTAKE
        found = compare.differences(left, right)
        if opt_values["as_json"] or len(words) < len(pos_args):
            sides = {
                side: {"manifest": str(path), "run_id": run["run_id"]}
                for side, path, run in zip("ab", paths, (left, right), strict=True)
            }
            rows = [difference.as_json() for difference in found]
            print_json({"schema": "thunder.compare/1", **sides, "differences": rows})
        elif found:
            print_table(("", *map(str, paths)), [_row(difference) for difference in found])
        else:
            print("the two runs are the same")
        return 0


def show(verdict: Verdict, as_json: bool) -> None:
    """Print a verdict: one line of JSON, or the verdict in words and what differs."""
    if as_json:
        print_json(_as_json(verdict))
        return
    lines = [f"{verdict.recipe}, run {verdict.run_id}: {headline(verdict)}", *verdict.problems]
    print(printable_lines("\n".join(lines if verdict.word == IMPOSSIBLE else [*lines, _counts(verdict)])))
    changed = [file for file in verdict.files if file.before != file.now]
    rows = [(file.path, _text(file.before or ABSENT), _text(file.now or ABSENT)) for file in changed]
    rows += [_row(difference) for difference in verdict.differences if difference.section != "outputs"]
    if rows and verdict.word != IDENTICAL:  # code may be other code and do the same
        print_table(("", "manifest", "made again"), rows)
    if verdict.folder:
        print(f"kept: {verdict.folder}")


def headline(verdict: Verdict) -> str:
    """A verdict in one line."""
    if verdict.word == DIFFERENT:
        return f"{DIFFERENT}, because of {verdict.why}; first: {verdict.first}"
    if verdict.word in (IDENTICAL, IMPOSSIBLE):
        return verdict.word
    changed = [one for one in verdict.differences if one.section == "environment"]
    named = (f"{one.key} {_text(one.left)} -> {_text(one.right)}" for one in changed)
    return f"{verdict.word} in another environment: {', '.join(named)}"


def _counts(verdict: Verdict) -> str:
    same = sum(file.before == file.now for file in verdict.files)
    metrics = verdict.metrics - len({one.key for one in verdict.differences if one.section == "metrics"})
    return f"{same} of {len(verdict.files)} files and {metrics} of {verdict.metrics} metrics came out equal"


def _as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "schema": "thunder.reproduce/1",
        "verdict": verdict.word,
        "recipe": verdict.recipe,
        "run_id": verdict.run_id,
        "why": verdict.why,
        "first": verdict.first,
        "problems": list(verdict.problems),
        "files": [{"path": one.path, "manifest": one.before, "made": one.now} for one in verdict.files],
        "differences": [one.as_json() for one in verdict.differences],
        "metrics": verdict.metrics,
        "folder": verdict.folder,
    }


def _manifest_path(word: str) -> Path:
    """A recipe's manifest, or the path itself when the word looks like one."""
    return Path(word) if "/" in word or word.endswith(".json") else Path("runs") / word / "manifest.json"


def _row(difference: compare.Difference) -> tuple[str, str, str]:
    return f"{difference.section}.{difference.key}", _text(difference.left), _text(difference.right)


def _text(value: Any) -> str:
    if isinstance(value, str) and value:
        return value[:12] if SHA256.fullmatch(value) else value
    return "-" if value is ABSENT else files.json_line(value).strip()


def print_json(value: dict[str, Any]) -> None:
    """One line of JSON."""
    sys.stdout.write(files.json_line(value))


def print_table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Columns in a pipe, a table on a terminal; of many rows the first."""
    console.print_table(titles, rows[:SHOWN])
    if len(rows) > SHOWN:
        print(f"... and {len(rows) - SHOWN} more; --json tells all")
