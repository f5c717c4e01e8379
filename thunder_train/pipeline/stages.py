"""What each stage of a run does, from its input files to its targets below `out`. graph.py says when.

`out` is a staging folder: a stage writes runs/<recipe>/... below it, and the build moves finished files into place.
"""

import contextlib
import platform
import shutil
import sys
import time
from functools import partial
from pathlib import Path

from thunder_train import ThunderError, models, raise_all
from thunder_train.build.stage import STATS
from thunder_train.cluster import fetch, preflight, sync
from thunder_train.cluster import hostfile as cluster
from thunder_train.config import validate
from thunder_train.config.dataset import Dataset
from thunder_train.config.project import Model, Recipe
from thunder_train.config.toml_io import resolved_toml
from thunder_train.core import code_hash, files, paths, templates
from thunder_train.core.console import counted
from thunder_train.core.process import command
from thunder_train.data import audit, builder
from thunder_train.evaluate import collapse, gate
from thunder_train.evaluate import conditions as scoring
from thunder_train.launch import scripts as render
from thunder_train.pipeline import graph
from thunder_train.report import run_report
from thunder_train.report import runs_index as pages
from thunder_train.reproduce import manifest as manifests

PARTIAL = Path(".thunder/partial")
"""Checkpoints of trainings that have not ended, by their key."""
CHECKED_S = 60
"""How long a preflight is worth something."""


def data(dataset: Dataset, out: Path) -> None:
    """A dataset's rows, manifest and audit page."""
    code = code_hash.digest(graph.DATASET_CODE, STATS)
    watch = partial(counted, label=f"data:{dataset.name}")
    builder.build(dataset, Path(), out / "data" / dataset.name, code, audit.build, watch)


def model(each: Model, out: Path) -> None:
    """A base model's lock."""
    models.build(each, Path(), out)


def hostfile(recipe: Recipe, out: Path) -> None:
    """hostfile.json."""
    files.write_json(_run(recipe, out) / "hostfile.json", cluster.hostfile(recipe.cluster))


def scripts(recipe: Recipe, out: Path) -> None:
    """launch.sh, evaluate.sh and the resolved recipe."""
    flags = {"launch.sh": render.launch_flags(recipe), "evaluate.sh": render.evaluate_flags(recipe)}
    for name in paths.SCRIPTS:
        text = templates.shell(Path("templates") / f"{name}.j2", {"recipe": recipe.name, "flags": flags[name]})
        files.write_text(_run(recipe, out) / name, text)
    files.write_text(_run(recipe, out) / "recipe.toml", resolved_toml(recipe))


def check(recipe: Recipe, out: Path) -> None:
    """preflight.json: every host's, link's and rank's word, or every problem at once; a sync may still be to come."""
    found = preflight.preflight(recipe, _run(recipe) / "logs" / "check", is_synced=False)
    files.write_json(_run(recipe, out) / "preflight.json", found)


def train(recipe: Recipe, out: Path) -> None:
    """The adapter, its metrics and done.json, by running launch.sh with its output in staging."""
    run, staged, rows = _run(recipe), _run(recipe, out), _split_rows(recipe)
    unfinished = PARTIAL / graph.train(recipe).key()[:16]
    raise_all(validate.batch_problems(recipe, rows["train"]))
    if recipe.train.strategy == "tensor":
        _check_split(recipe)
    synced = _sync(recipe)
    if recipe.cluster.is_remote and (synced.has_changed or not _is_checked(run / "preflight.json")):
        files.write_json(run / "preflight.json", preflight.preflight(recipe, run / "logs" / "check"))
    start = time.perf_counter()
    try:
        command(
            # Checkpoints lie under the key of exactly this training: a killed one goes on, another begins anew.
            [
                "bash",
                str(run / "launch.sh"),
                "--adapter-path",
                f"{staged}/adapter",
                "--checkpoint-path",
                str(unfinished),
            ],
            where=f"training {recipe.name}",
            hint=f"read the lines above and {run}/logs/",
        )
    except ThunderError:
        with contextlib.suppress(ThunderError):  # what it died of is told, not what came of it
            fetch.checkpoints(recipe, Path(), str(unfinished))
        raise
    fetch.outputs(recipe, Path(), str(staged))
    done = files.read_json(staged / "adapter" / "done.json", hint="the training ended without it; read its logs")
    read = {name: done["rows"][name] + done["dropped"][name] - done["split"][name] for name in ("train", "valid")}
    if any(read[name] != rows[name] for name in read):
        hint = f"run `./doit data:{recipe.dataset.name}`"
        raise ThunderError(f"trained on {read} rows, its manifest has {rows}", recipe.dataset.name, hint)
    shutil.rmtree(unfinished, ignore_errors=True)
    fetch.remove_folders(recipe, Path(), [str(unfinished), str(out)])
    facts = {"seconds": round(time.perf_counter() - start, 3), "machine": platform.platform()}
    files.write_json(staged / "timing.json", facts)


def _sync(recipe: Recipe) -> sync.Synced:
    """Every remote host brought to the state of this project, and what that took told."""
    synced = sync.sync(recipe, Path())
    for line in sync.lines(synced):
        print(line, flush=True)
    return synced


def _is_checked(found: Path) -> bool:
    """Whether a preflight has just found all ranks ready. Later hosts may have changed, and hours are at stake."""
    return time.time() - found.stat().st_mtime < CHECKED_S and not files.read_json(found)["notes"]


def _check_split(recipe: Recipe) -> None:
    """Refuse a model that the ranks cannot split before any of them starts; a hub model is refused by its ranks."""
    folder = dict(render.model_flags(recipe))["--model"]
    if recipe.model.kind == "hub":
        return
    flags = ["--config", f"{folder}/config.json", "--ranks", str(len(recipe.cluster.hosts)), "--check-split"]
    argv = [sys.executable, "-m", "thunder_train.worker.inspect.fit", *flags]
    command(argv, where=f"model {recipe.model.name!r}", hint="read the lines above")


def evaluate(recipe: Recipe, out: Path) -> None:
    """predictions.jsonl by running evaluate.sh; decisions.jsonl and eval.json by judging and scoring them here."""
    run, staged = _run(recipe), _run(recipe, out)
    predictions, losses = staged / "predictions.jsonl", staged / "losses.json"
    _sync(recipe)  # the first rank reads the adapter
    command(
        ["bash", str(run / "evaluate.sh"), "--predictions", str(predictions), "--losses", str(losses)],
        where=f"evaluating {recipe.name}",
        hint="read the lines above",
    )
    fetch.outputs(recipe, Path(), str(staged), fetch.EVALUATED)
    fetch.remove_folders(recipe, Path(), [f"{PARTIAL}/answers-{recipe.name}", str(out)])
    told = {row["id"]: row for row in files.read_jsonl(Path("data") / recipe.dataset.name / "decisions.jsonl")}
    rows, measured = files.read_jsonl(predictions), files.read_json(losses)
    judged, found = scoring.judge(rows, told, measured, recipe.evaluate, f"{recipe.file}: evaluate.gate.command")
    files.write_text(staged / gate.FILE, gate.as_jsonl(judged))
    files.write_json(staged / "eval.json", found)
    collapsed = collapse.problems(found["probe"], recipe.evaluate.probe, recipe.file)
    if collapsed:  # a failed stage leaves no target, and somebody wants to see what was answered
        shutil.copy(predictions, run / "logs" / "evaluate" / "predictions.jsonl")
    raise_all(collapsed)
    shutil.rmtree(PARTIAL / f"answers-{recipe.name}", ignore_errors=True)


def report(recipe: Recipe, out: Path) -> None:
    """promotion.json, report.md and report.html."""
    run, staged = _run(recipe), _run(recipe, out)
    results = run_report.gather(recipe, Path())
    decision = run_report.decide(results)
    files.write_json(staged / "promotion.json", decision)
    files.write_text(staged / "report.md", run_report.markdown_page(results, decision))
    files.write_text(staged / "report.html", run_report.html_page(results, decision))
    print(f"{decision['decision']}, {len(decision['reasons'])} reasons against it: {run}/report.html", flush=True)


def manifest(recipe: Recipe, out: Path) -> None:
    """manifest.json, the file to commit."""
    files.write_json(_run(recipe, out) / "manifest.json", manifests.build(recipe, Path(), graph.code_of(recipe)))


def index(_: list[str], out: Path) -> None:
    """The page of all runs."""
    files.write_text(out / "runs" / "index.html", pages.build(Path()))


def _run(recipe: Recipe, out: Path = Path()) -> Path:
    return out / "runs" / recipe.name


def _split_rows(recipe: Recipe) -> dict[str, int]:
    splits = files.read_json(Path("data") / recipe.dataset.name / "manifest.json")["splits"]
    return {name: split["rows"] for name, split in splits.items()}
