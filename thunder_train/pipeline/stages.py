"""What each stage does, from its input files to its targets below `out`. graph.py says which files those are.

`out` is a staging folder: a stage writes runs/<recipe>/... below it, and the build moves finished files into place.
"""

import contextlib
import datetime
import importlib.util
import platform
import shutil
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, models, raise_all
from thunder_train.build import accepted
from thunder_train.cluster import fetch, preflight, sync
from thunder_train.cluster import hostfile as hostfiles
from thunder_train.config import validate
from thunder_train.config.dataset import Dataset
from thunder_train.config.project import Model, Recipe
from thunder_train.config.toml_io import resolved_toml
from thunder_train.core import checkout, extras, files, paths, speaker
from thunder_train.core.console import counted
from thunder_train.core.process import command
from thunder_train.data import audit, builder, hub_dataset, orthography, telemetry
from thunder_train.evaluate import collapse, conditions, gate, looks
from thunder_train.launch import fit
from thunder_train.launch.scripts import model_flags, rendered
from thunder_train.report import model_card, run_report
from thunder_train.reproduce import manifest as manifests

PROJECT = Path()
PREFLIGHT_VALID_S = 60
"""Seconds during which a passed preflight is reused."""
READ_LOGS = "read the lines above"


def data(dataset: Dataset, out: Path, code: str) -> None:
    """A dataset's rows and manifest. code: version of the code that decides the rows, for the manifest."""
    progress, places = partial(counted, label=f"data:{dataset.name}"), hub_dataset.places(dataset, PROJECT)
    built = builder.build(dataset, PROJECT, out / paths.dataset(dataset.name), code, audit.build, progress, places)
    for note in (*built.get("notes", ()), *builder.left_out(built)):
        speaker.say(f"data:{dataset.name}: {note}")


def audit_page(dataset: Dataset, out: Path) -> None:
    """A dataset's audit page, from what the build of its rows noted."""
    audit.render(out / paths.dataset(dataset.name))


def model(base: Model, out: Path) -> None:
    """A base model's lock."""
    models.build(base, PROJECT, out)


def hostfile(recipe: Recipe, out: Path) -> None:
    """hostfile.json."""
    files.write_json(_run(recipe, out) / "hostfile.json", hostfiles.hostfile(recipe.cluster))


def scripts(recipe: Recipe, out: Path) -> None:
    """launch.sh, evaluate.sh and the resolved recipe."""
    for name in recipe.scripts:
        files.write_text(_run(recipe, out) / name, rendered(recipe, name))
    files.write_text(_run(recipe, out) / "recipe.toml", resolved_toml(recipe))


def check(recipe: Recipe, out: Path) -> None:
    """preflight.json: the answers of every host, link and rank; raises every problem at once.

    The training syncs later, so a file that a host lacks is no problem yet.
    """
    answers = preflight.preflight(recipe, _run(recipe) / "logs" / "check", is_synced=False)
    files.write_json(_run(recipe, out) / "preflight.json", answers)


def train(recipe: Recipe, out: Path, checkpoints: str, last: str) -> None:
    """The adapter, its metrics and done.json, by running launch.sh with its output in staging.

    checkpoints: the folder from which a killed training goes on. It stays until `keep_last`. last: the folder with the
    end of a training of fewer steps, if there was one.
    """
    run, staged, rows, digests = _run(recipe), _run(recipe, out), _split_rows(recipe), _row_digests(recipe)
    raise_all(validate.split_problems(recipe, rows))
    _check_layers(recipe)
    _check_trackers(recipe)
    ended = [str(path) for path in Path(last).glob("*.safetensors")] if last else []
    synced = _sync(recipe, ended)
    if recipe.cluster.is_remote and (synced.has_changed or not _is_valid(run / "preflight.json")):
        files.write_json(run / "preflight.json", preflight.preflight(recipe, run / "logs" / "check"))
    start_s, commit = time.perf_counter(), checkout.commit(PROJECT)
    _launch(recipe, run, staged, ["--checkpoint-path", checkpoints, *(["--extend-from", last] if ended else [])])
    fetch.outputs(recipe, PROJECT, str(staged))
    _check_rows(recipe, rows, digests, staged / "adapter" / "done.json")
    fetch.remove_folders(recipe, PROJECT, [str(out)])
    files.write_json(staged / "timing.json", _timing(time.perf_counter() - start_s, commit))


def _timing(seconds: float, commit: str) -> dict[str, Any]:
    """timing.json: what a training took and where, when it ended, and the commit of the project when it began."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
    return {"seconds": round(seconds, 3), "machine": platform.platform(), "ended": now, "commit": commit}


def adopt(recipe: Recipe, out: Path) -> None:
    """The adapter of another program as a training would have left it, and done.json, which says whence it came."""
    flags = [str(part) for pair in model_flags(recipe)[:2] for part in pair]
    places = ["--source", recipe.adapter.path, "--adapter-path", str(_run(recipe, out) / "adapter")]
    argv = [sys.executable, "-m", "thunder_train.worker.adopt", *flags, *places]
    command(argv, where=f"adapter of {recipe.name}", hint=READ_LOGS)


def forget(recipe: Recipe, folder: str) -> None:
    """Remove what a stage that stands now would have gone on from, here and on every host."""
    shutil.rmtree(folder, ignore_errors=True)
    fetch.remove_folders(recipe, PROJECT, [folder])


def keep_last(recipe: Recipe, folder: str, last: str) -> None:
    """Move the last checkpoint of a training that stands now into `last`, where one of more steps finds it; `forget`.

    last: "" where a training of more steps does not go on from this one.
    """
    if last:
        try:
            fetch.checkpoints(recipe, PROJECT, folder)
        except ThunderError as error:
            print(f"warning: the last checkpoint stays on its host: {error}", file=sys.stderr, flush=True)
        if ends := sorted(Path(folder).glob("*.safetensors")):
            shutil.rmtree(last, ignore_errors=True)
            files.move(ends[-1], Path(last) / ends[-1].name)
    forget(recipe, folder)


def _launch(recipe: Recipe, run: Path, staged: Path, folders: list[str]) -> None:
    """Run launch.sh. If it fails, bring its checkpoints here, so that the next attempt resumes from them.

    folders: flags of where it goes on from; the second is the folder of its checkpoints.
    """
    try:
        command(
            ["bash", str(run / "launch.sh"), "--adapter-path", f"{staged}/adapter", *folders],
            where=f"training {recipe.name}",
            hint=f"{READ_LOGS} and {run}/logs/",
        )
    except ThunderError:
        with contextlib.suppress(ThunderError):  # report why the training failed, not that fetching failed too
            fetch.checkpoints(recipe, PROJECT, folders[1])
        raise


def _check_rows(recipe: Recipe, rows: dict[str, int], digests: dict[str, str], done: Path) -> None:
    """Refuse a training that read other rows than the dataset's manifest counts, or than lay there when it began.

    digests: of `_row_digests`. Rows that were swapped and swapped back meanwhile show nowhere else.
    """
    record = files.read_json(done, hint="the training ended without it; read its logs")
    try:
        read = {
            name: record["rows"][name] + record["dropped"][name] - record["split"][name] for name in ("train", "valid")
        }
        swapped = [name for name, sha in digests.items() if not sha.startswith(record["rows_sha256"][name])]
    except (KeyError, TypeError):
        raise ThunderError("does not count its rows", where=str(done), hint="train again") from None
    if any(read[name] != rows[name] for name in read):
        hint = f"run `./doit data:{recipe.dataset.name}`"
        raise ThunderError(f"trained on {read} rows, its manifest has {rows}", recipe.dataset.name, hint)
    if swapped:
        what = f"{' and '.join(f'{name}.jsonl' for name in swapped)} changed before the training read it"
        raise ThunderError(what, recipe.dataset.name, "leave the rows alone while a training starts; run doit again")


def _row_digests(recipe: Recipe) -> dict[str, str]:
    """sha256 of the rows that a training is to read."""
    folder = Path(paths.dataset(recipe.dataset.name))
    return {name: files.sha256(folder / f"{name}.jsonl") for name in ("train", "valid")}


def _sync(recipe: Recipe, more: Iterable[str] = ()) -> sync.Synced:
    """Bring every remote host to the state of this project, and print what that took. more: files besides."""
    synced = sync.sync(recipe, PROJECT, more)
    for line in sync.lines(synced):
        speaker.say(line)
    return synced


def _is_valid(preflight_file: Path) -> bool:
    """Whether a recent preflight found all ranks ready; hosts may change, and a training takes hours."""
    age_s = time.time() - preflight_file.stat().st_mtime
    return age_s < PREFLIGHT_VALID_S and not files.read_json(preflight_file)["notes"]


def _check_layers(recipe: Recipe) -> None:
    """Refuse a model that cannot get such an adapter, or that the ranks cannot split, before any rank starts.

    Every layer of every model can get LoRA, so without a wish of its own a training need not wait for this.
    """
    train = recipe.train
    if train.strategy == "data" and train.fine_tune_type == "lora" and not train.lora_keys and not train.start_from:
        return
    config = models.config_file(recipe.model, PROJECT)
    flags = ["--config", str(config), "--ranks", str(len(recipe.cluster.hosts)), "--check"]
    argv = [sys.executable, "-m", "thunder_train.worker.inspect.fit", *fit.worker_flags(recipe), *flags]
    command(argv, where=f"model {recipe.model.name!r}", hint=READ_LOGS)


def _check_trackers(recipe: Recipe) -> None:
    """Refuse a tracker that is not installed, before any rank loads the model. On another host rank 0 says so."""
    missing = [name for name in recipe.train.report_to if importlib.util.find_spec(name) is None]
    if missing and not recipe.cluster.is_remote:
        what = f"names {' and '.join(missing)}, which is not installed"
        raise ThunderError(what, f"{recipe.file}: train.report_to", extras.install(missing))


def evaluate(recipe: Recipe, out: Path) -> None:
    """predictions.jsonl by running evaluate.sh; decisions.jsonl and eval.json by judging and scoring them here."""
    run, staged = _run(recipe), _run(recipe, out)
    predictions, losses = staged / "predictions.jsonl", staged / "losses.json"
    _sync(recipe)  # the first rank reads the adapter
    command(
        ["bash", str(run / "evaluate.sh"), "--predictions", str(predictions), "--losses", str(losses)],
        where=f"evaluating {recipe.name}",
        hint=READ_LOGS,
    )
    fetch.outputs(recipe, PROJECT, str(staged), fetch.EVALUATED)
    fetch.remove_folders(recipe, PROJECT, [str(out)])
    _score(recipe, predictions, losses, staged)


def _score(recipe: Recipe, predictions: Path, losses: Path, staged: Path) -> None:
    """Write decisions.jsonl and eval.json, and say whether the adapter's answers have collapsed."""
    decisions = files.read_jsonl(Path(paths.dataset(recipe.dataset.name)) / "decisions.jsonl")
    recorded = {row["id"]: row for row in decisions}
    rows, where = files.read_jsonl(predictions), f"{recipe.file}: evaluate.gate.command"
    names = telemetry.HYPOTHESIS_SIDE.union(*(telemetry.Allowed.of(each).declared for each in recipe.dataset.sources))
    table, measured = orthography.of_dataset(recipe.dataset), files.read_json(losses)
    judged, evaluation = conditions.judge(rows, recorded, measured, recipe.evaluate, where, names, table)
    files.write_text(staged / gate.FILE, gate.as_jsonl(judged))
    files.write_json(staged / "eval.json", evaluation)
    _note_look(staged / "eval.json")
    probe = evaluation["probe"]
    if probe["collapsed"]:
        for sentence in (f"the adapter has collapsed: {'; '.join(probe['collapsed'])}", *collapse.thinking(probe)):
            speaker.say(sentence)


def _note_look(path: Path) -> None:
    """Record that an adapter was evaluated on its test rows. path: of eval.json."""
    evaluation = files.read_json(path)
    if test := evaluation.get("test_sha256"):
        looks.note(PROJECT, test, evaluation["adapter_sha256"])


def report(recipe: Recipe, out: Path, entries: dict[str, Any]) -> None:
    """promotion.json, report.md and report.html. entries: {stage: what was accepted}."""
    run, staged = _run(recipe), _run(recipe, out)
    _note_look(_run(recipe) / "eval.json")
    results = run_report.gather(recipe, PROJECT, [*accepted.of_run_in_words(entries)])
    decision = run_report.decide(results)
    files.write_json(staged / "promotion.json", decision)
    files.write_text(staged / "report.md", run_report.markdown_page(results, decision))
    files.write_text(staged / "report.html", run_report.html_page(results, decision))
    files.write_text(staged / paths.CARD, model_card.card(recipe, PROJECT, decision=decision))
    speaker.say(f"{decision['decision']}, {len(decision['reasons'])} reasons against it: {run}/report.html")


def manifest(recipe: Recipe, out: Path, code: dict[str, str], entries: dict[str, Any]) -> None:
    """manifest.json, the file to commit. code: {stage: version of its code}; entries: {stage: what was accepted}."""
    files.write_json(_run(recipe, out) / "manifest.json", manifests.build(recipe, PROJECT, code, entries))


def _run(recipe: Recipe, out: Path = PROJECT) -> Path:
    return out / paths.run(recipe.name)


def _split_rows(recipe: Recipe) -> dict[str, int]:
    """Rows of each split, by the dataset's manifest."""
    splits = files.read_json(paths.dataset_manifest(recipe.dataset.name))["splits"]
    return {name: split["rows"] for name, split in splits.items()}
