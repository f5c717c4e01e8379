"""A run reproduced from its manifest: every verdict, and what the clean folder takes from the current project."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.manifests import RUN, edited, stopped
from tests.helpers.project_copy import Copy
from thunder_train.core import files
from thunder_train.reproduce.compare import IMPOSSIBLE, Verdict

SOURCE = "data/sources/policy_smoke_http_fewshot_rust_gate.json"
TEMPLATE = "templates/prompts/correct.j2"
ADAPTER = "runs/smoke/adapter/adapters.safetensors"


def json_line(output: str) -> dict[str, Any]:
    """The line of JSON in doit's output."""
    line = next(line for line in output.splitlines() if line.startswith("{"))
    value: dict[str, Any] = json.loads(line)
    return value


@pytest.mark.ranks
def test_an_old_run_is_reproduced_whatever_the_current_recipe_says(project: Copy) -> None:
    """
    Only the manifest, the inputs and the code count; current runs and recipes are neither read nor changed.
    """
    project.edit("recipes/smoke.toml", "learning_rate = 1e-6", "learning_rate = 1e-3")
    project.edit("thunder.toml", "width = 64", "width = 32")
    shutil.rmtree(project.path / "data/agp-nko-corrections")
    before = (project.path / ADAPTER).stat()

    done = project.doit("reproduce:smoke")

    assert 0 == done.status, done.output
    assert "run " + files.read_json(project.path / RUN)["run_id"] + ": identical\n" in done.output
    assert re.search(r"^15 of 15 files and (\d+) of \1 metrics came out equal$", done.output, re.MULTILINE)
    assert [] == [path for path in (project.path / ".thunder/reproduce").iterdir() if path.is_dir()]
    assert before == (project.path / ADAPTER).stat()


@pytest.mark.ranks
@pytest.mark.slow
def test_a_reproduction_is_the_look_that_its_manifest_says(project: Copy) -> None:
    """
    The decision depends on the looks before it, of which the clean folder knows the number alone.
    """
    ledger = project.path / "runs/looks.jsonl"
    files.write_text(ledger, ledger.read_text().replace('"number": 1', '"number": 7'))
    assert 0 == project.doit("-a", "report:smoke").status
    assert 0 == project.doit("manifest:smoke").status

    done = project.doit("reproduce:smoke")

    assert 7 == files.read_json(project.path / RUN)["promotion"]["looks"]["count"]
    assert ": identical\n" in done.output


@pytest.mark.ranks
@pytest.mark.slow
def test_other_code_is_named_as_the_cause(project: Copy) -> None:
    """
    The first file that differs is the adapter, and the manifest has another hash for the training's code.
    """
    project.edit("thunder_train/worker/optimizer.py", "decay, bias_correction=True", "decay, bias_correction=False")

    done = project.doit("reproduce", "-m", RUN)

    assert 1 == done.status
    assert re.search(
        rf": different, because of code \(train: revision \d+ -> [0-9a-f]{{12}}\); first: {ADAPTER}\n", done.output
    )
    kept = next(line for line in done.output.splitlines() if line.startswith("kept: ")).removeprefix("kept: ")
    assert (project.path / kept / ADAPTER).is_file()


@pytest.mark.ranks
@pytest.mark.slow
def test_a_hash_that_nothing_explains_is_nondeterminism(project: Copy) -> None:
    """
    Same inputs, code and environment but another adapter: chance, or a false manifest.
    """
    changed = edited(project, lambda run: run["outputs"][1].update(sha256="0" * 64))

    done = project.doit("reproduce", "-m", str(changed), "--json")

    verdict = json_line(done.output)
    assert 1 == done.status
    assert ("different", "nondeterminism", ADAPTER) == (verdict["verdict"], verdict["why"], verdict["first"])
    assert [{"a": "0" * 64, "section": "outputs", "key": "adapter/adapters.safetensors.sha256"}] == [
        {key: value for key, value in difference.items() if key != "b"} for difference in verdict["differences"]
    ]


@pytest.mark.ranks
def test_changed_and_missing_inputs_make_it_impossible(project: Copy) -> None:
    """
    Every such input is named before anything is built.
    """
    project.edit(SOURCE, "row_id", "row-id")
    (project.path / TEMPLATE).unlink()
    now = files.sha256(project.path / SOURCE)
    was = files.read_json(project.path / RUN)["inputs"]["sources"][0]["sha256"]

    by_task, by_command = project.doit("reproduce:smoke"), project.doit("reproduce", "-m", RUN, "--json")

    assert (1, 2) == (by_task.status, by_command.status)
    assert "impossible" == json_line(by_command.output)["verdict"]
    assert [
        f"{TEMPLATE}: is missing; the run cannot be reproduced without it",
        f"{SOURCE}: has changed: its sha256 is {now}, but the run used {was}; restore it",
    ] == json_line(by_command.output)["problems"]
    assert "Traceback" not in by_task.output


def test_a_build_that_fails_makes_it_impossible(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The clean folder stays for inspection.
    """
    verdict = stopped(project, lambda run: None, monkeypatch)

    assert (IMPOSSIBLE, ("building smoke again: was not started",)) == (verdict.word, verdict.problems)
    assert Path(verdict.folder).is_dir()


def test_the_clean_folder_holds_the_manifests_recipe_and_nothing_built(
    project: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    No current rows, model or adapter may leak in, and the run cache must be off.
    """
    folder = Path(stopped(project, lambda run: run["recipe"]["train"].update(seed=7), monkeypatch).folder)
    shutil.rmtree(folder / "thunder_train")
    paths = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    sources = {source["path"] for source in files.read_json(project.path / RUN)["inputs"]["sources"]}
    templates = {str(path.relative_to(project.path)) for path in (project.path / "templates").rglob("*.j*")}
    assert {"dodo.py", "pyproject.toml", "thunder.toml", "recipes/smoke.toml", *sources, *templates} == paths
    assert "seed = 7" in (folder / "recipes/smoke.toml").read_text(encoding="utf-8")
    assert "cache_limit_gb = 0.0" in (folder / "thunder.toml").read_text(encoding="utf-8")


def test_a_manifest_cannot_set_variables_of_the_ranks(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    LD_PRELOAD in a manifest would run foreign code; hosts and variables come from the current thunder.toml.
    """
    harm = {"envs": ["LD_PRELOAD=/tmp/evil.so"], "hosts": [{"ssh": "evil"}], "python": "evil"}

    folder = Path(stopped(project, lambda run: run["recipe"]["cluster"].update(harm), monkeypatch).folder)

    assert "evil" not in (folder / "thunder.toml").read_text(encoding="utf-8")


def test_a_remote_run_needs_a_cluster_of_its_size(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The manifest names no host, so the current cluster of that name provides them.
    """
    remote = {"local": False, "name": "macs"}

    def tried(**change: Any) -> Verdict:
        return stopped(project, lambda run: run["recipe"]["cluster"].update(remote, **change), monkeypatch)

    too_many, unknown, fitting = tried(ranks=3), tried(name="none"), tried(weights=[3.0, 1.0])

    assert ("thunder.toml: clusters.macs: has 2 hosts over ring; the run needs 3 hosts over ring",) == too_many.problems
    what = "thunder.toml: clusters.none: is missing; the run needs a cluster of that name with 2 hosts over ring"
    assert (what,) == unknown.problems
    written = (Path(fitting.folder) / "thunder.toml").read_text(encoding="utf-8")
    assert 'ssh = "mac5"' in written
    assert "weight = 3.0" in written


def test_a_model_folder_is_checked_and_linked(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Gigabytes are not copied, and only files in the lock are linked.
    """
    shutil.copytree(project.path / "runs/models/nano/files", project.path / "models/tiny")
    (project.path / "models/tiny/notes.json").write_text("{}")
    change = {"kind": "path", "path": "models/tiny"}

    folder = Path(stopped(project, lambda run: run["recipe"]["model"].update(change), monkeypatch).folder)
    links = {path.name for path in (folder / "models/tiny").iterdir() if path.is_symlink()}
    (project.path / "models/tiny/config.json").write_text("{}")
    changed = stopped(project, lambda run: run["recipe"]["model"].update(change), monkeypatch)

    assert {file["path"] for file in files.read_json(project.path / RUN)["model"]["files"]} == links
    assert "model nano: config.json: has changed: its sha256 is " in changed.problems[0]


def test_the_current_thunder_toml_locates_a_model_outside_the_project(
    project: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The manifest holds only the last part of an absolute path.
    """
    outside = project.path.parent / "tiny"
    shutil.copytree(project.path / "runs/models/nano/files", outside)
    project.edit("thunder.toml", 'kind = "nano"', f'kind = "path"\npath = "{outside}"')
    change = {"kind": "path", "path": "tiny"}

    folder = Path(stopped(project, lambda run: run["recipe"]["model"].update(change), monkeypatch).folder)

    assert f'path = "{outside}"' in (folder / "thunder.toml").read_text(encoding="utf-8")


def test_a_hub_model_that_is_not_cached_makes_it_impossible(
    project: Copy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    Nothing is downloaded: without the locked commit in the local cache the run is impossible.
    """
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def change(run: dict[str, Any]) -> None:
        run["recipe"]["model"].update({"kind": "hub", "repo": "owner/name"})
        run["model"].update({"commit": "a" * 40, "files": run["model"]["files"][:1]})

    missing = stopped(project, change, monkeypatch)
    snapshot = tmp_path / "hub/models--owner--name/snapshots" / ("a" * 40)
    shutil.copytree(project.path / "runs/models/nano/files", snapshot)
    folder = Path(stopped(project, change, monkeypatch).folder)

    assert ("model nano: config.json: is missing; the run cannot be reproduced without it",) == missing.problems
    assert "a" * 40 == files.read_json(folder / "runs/models/nano/model.lock.json")["commit"]


def test_an_input_without_its_hash_makes_it_impossible(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A source without a hash could hold anything.
    """
    verdict = stopped(project, lambda run: run["inputs"]["sources"].pop(0), monkeypatch)

    assert (f"{SOURCE}: has no sha256 in the manifest",) == verdict.problems


@pytest.mark.ranks
def test_mistakes_at_the_command_line_are_one_line(project: Copy) -> None:
    """
    Status 3, the problem and a hint.
    """
    path = edited(project, lambda run: run["recipe"].update(name="../x"))
    none, hostile = project.doit("reproduce"), project.doit("reproduce", "-m", str(path))
    (project.path / RUN).unlink()
    missing = project.doit("reproduce:smoke")

    hint = "`doit reproduce -m PATH`, or `doit reproduce:NAME` for a recipe"
    assert (3, f"doit reproduce: needs one manifest; {hint}\n") == (none.status, none.output)
    assert (3, 1) == (hostile.status, len(hostile.output.splitlines()))
    assert 1 == missing.status
    assert f"{RUN}: is missing; run `./doit manifest:smoke`" in missing.output
    assert not any("Traceback" in done.output for done in (none, hostile, missing))
