"""`doit push` and `doit pull`: outputs of recipes to and from a store, so that a colleague's clone need not train."""

import fnmatch
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from doit.cmd_base import DoitCmdBase

from thunder_train import ThunderError, raise_all
from thunder_train.build import accepted, exchange, explain, store
from thunder_train.build.exchange import Moved
from thunder_train.build.run_cache import RunCache
from thunder_train.cli.commands import JSON
from thunder_train.cli.ending import USER_ERROR, in_form
from thunder_train.cli.word_order import AnyOrder
from thunder_train.core import console, paths
from thunder_train.core.text import printable, printable_lines
from thunder_train.reproduce import manifest

SCHEMA = "thunder.moved/1"
FORMS = f"{store.FORMS}; project.store of thunder.toml is the default"
TO = {"name": "store", "short": "", "long": "to", "type": str, "default": "", "help": FORMS}
FROM = {**TO, "long": "from"}


class _Exchange(AnyOrder, DoitCmdBase):  # type: ignore[misc]  # doit ships no types
    """What push and pull share: the words name recipes, by default those that a bare doit builds."""

    takes_recipes = True
    doc_usage = "[RECIPE ...]"

    def _run(self, address: str, as_json: bool, move: Callable[[str, store.Store], Moved]) -> int:
        try:
            if not address:
                hint = f"set store in [project] of thunder.toml, or give --{self.cmd_options[0]['long']}"
                raise ThunderError("no store is named", f"doit {self.name}", hint)
            place = store.at(address)
            moved = [move(recipe, place) for recipe in named(self.sel_tasks, self._recipes())]
        except ThunderError as error:
            print(printable_lines(in_form(error)), file=sys.stderr)
            return USER_ERROR
        finally:
            self.dep_manager.close()
        if as_json:
            console.print_json({"schema": SCHEMA, "runs": [asdict(each) for each in moved]})
        else:
            self.outstream.write("".join(f"{self._in_words(each)}\n" for each in moved))
        return 0

    def _recipes(self) -> dict[str, Any]:
        """{recipe: the task of its manifest}"""
        manifests = [task for task in self.task_list if task.name.startswith("manifest:") and task.meta]  # no group's
        return {task.name.partition(":")[2]: task for task in manifests}

    def _in_words(self, moved: Moved) -> str:
        size = f"{moved.files} files, {moved.bytes / 1e6:,.1f} MB" if moved.files else "all of it was there"
        return printable(f"{moved.recipe}, run {moved.run_id}: {size}")


class Push(_Exchange):
    """doit push: what the stages of recipes made, to a store."""

    name = "push"
    doc_purpose = "send the outputs of recipes to a store: a folder, a host or a bucket"
    doc_description = "Rows, adapters, metrics and answers, by their sha256; only what the store lacks is sent."
    cmd_options = (TO, JSON)

    def _execute(self, store: str, as_json: bool) -> int:
        return self._run(store, as_json, self._push)

    def _push(self, recipe: str, place: store.Store) -> Moved:
        tasks = {task.name: task for task in self.task_list}
        task = f"manifest:{recipe}"
        reasons = explain.explain(self.task_list, [task], self.dep_manager.backend)
        if stale := [name for name in explain.stages_before(task, tasks) if reasons.get(name)]:
            raise ThunderError(f"{', '.join(stale)}: not up to date", recipe, f"run `./doit {task}` first")
        stages = [tasks[name].meta["stage"] for name in explain.stages_before(task, tasks)]
        cached = [stage for stage in stages if stage.is_cached]
        raise_all([_accepted(stage.name) for stage in cached if accepted.entry_of(stage.name)])
        return exchange.push(recipe, manifest.read(Path(paths.run_manifest(recipe)))["run_id"], cached, place)


class Pull(_Exchange):
    """doit pull: outputs from a store into the run cache."""

    name = "pull"
    doc_purpose = "fetch the outputs of recipes from a store; the next doit restores them"
    doc_description = "Each run is named by its committed manifest, and every file is compared with it."
    cmd_options = (FROM, JSON)

    def _execute(self, store: str, as_json: bool) -> int:
        return self._run(store, as_json, self._pull)

    def _pull(self, recipe: str, place: store.Store) -> Moved:
        run = manifest.read(Path(paths.run_manifest(recipe)))
        cache: RunCache = self._recipes()[recipe].meta["cache"]
        moved = exchange.pull(recipe, run["run_id"], outputs_of(run), cache, place)
        cache.trim()
        return moved


def named(words: list[str], recipes: dict[str, Any]) -> list[str]:
    """The recipes that words name: by name, by a task, or by a pattern. Raises ThunderError for one that names none."""
    chosen: dict[str, None] = {}
    problems = []
    for word in words:
        pattern = word.rpartition(":")[2]
        matching = fnmatch.filter(recipes, pattern)
        if not matching:
            problems.append(ThunderError(f"no recipe is named {pattern!r}", hint="`./doit status` shows all"))
        chosen |= dict.fromkeys(matching)
    raise_all(problems)
    return list(chosen)


def outputs_of(run: dict[str, Any]) -> dict[str, str]:
    """{name of a stage's output: sha256} of all that a manifest states: of the run, of its rows, of a made model."""
    rows, base = run["recipe"]["dataset"]["name"], run["recipe"]["model"]["name"]
    outputs = {each["path"]: each["sha256"] for each in run["outputs"]}
    outputs |= {f"{paths.dataset(rows)}/{name}.jsonl": each["sha256"] for name, each in run["inputs"]["splits"].items()}
    return outputs | {f"{paths.model(base)}/files/{each['path']}": each["sha256"] for each in run["model"]["files"]}


def _accepted(stage: str) -> ThunderError:
    what = "its outputs were accepted, and other code made them than the code of today"
    return ThunderError(what, stage, f"`./doit -a {stage}` makes them anew")
