"""A run made again from its manifest: every verdict, and manifests that nobody should trust."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.project import Copy
from thunder_train import ThunderError, files, manifest, process
from thunder_train.compare import IMPOSSIBLE, Verdict
from thunder_train.reproduce import reproduce

RUN = "runs/smoke/manifest.json"
SOURCE = "data/sources/policy_smoke_http_fewshot_rust_gate.json"
TEMPLATE = "templates/prompts/correct.j2"
ADAPTER = "runs/smoke/adapter/adapters.safetensors"

Change = Callable[[dict[str, Any]], Any]


def edited(project: Copy, change: Change) -> Path:
    """A manifest of the project after a change, with the run_id that goes with it."""
    run = files.read_json(project.path / RUN)
    change(run)
    run["run_id"] = files.digest({key: run[key] for key in manifest.MADE_FROM})[:12]
    files.write_json(project.path / "edited.json", run)
    return project.path / "edited.json"


def stopped(project: Copy, change: Change, monkeypatch: pytest.MonkeyPatch) -> Verdict:
    """What reproducing an edited manifest comes to when the build itself is not started."""

    def stop(argv: list[str], where: str, mend: str) -> None:
        raise ThunderError("was not started", where=where)

    monkeypatch.setattr(process, "tool", stop)
    return reproduce(edited(project, change), project.path)


def told(output: str) -> dict[str, Any]:
    """The line of JSON in what doit printed."""
    line = next(line for line in output.splitlines() if line.startswith("{"))
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.ranks
def test_an_old_run_is_made_again_whatever_the_recipe_says_today(project: Copy) -> None:
    """
    Only the manifest, the inputs and the code count; today's runs and recipes are neither read nor touched.
    """
    project.edit("recipes/smoke.toml", "learning_rate = 1e-6", "learning_rate = 1e-3")
    project.edit("thunder.toml", "width = 64", "width = 32")
    shutil.rmtree(project.path / "data/agp-nko-corrections")
    before = (project.path / ADAPTER).stat()

    done = project.doit("reproduce:smoke")

    assert 0 == done.status, done.output
    assert "run " + files.read_json(project.path / RUN)["run_id"] + ": identical\n" in done.output
    assert re.search(r"^17 of 17 files and (\d+) of \1 metrics came out equal$", done.output, re.MULTILINE)
    assert [] == [path for path in (project.path / ".thunder/reproduce").iterdir() if path.is_dir()]
    assert before == (project.path / ADAPTER).stat()


@pytest.mark.ranks
def test_other_code_is_named_as_the_cause(project: Copy) -> None:
    """
    The first file that differs is the adapter, and the training's code is not what the manifest tells.
    """
    project.edit("thunder_train/worker/loop.py", "bias_correction=True", "bias_correction=False")

    done = project.doit("reproduce", "-m", RUN)

    assert 1 == done.status
    assert f": different, because of code; first: {ADAPTER}\n" in done.output
    kept = next(line for line in done.output.splitlines() if line.startswith("kept: ")).removeprefix("kept: ")
    assert (project.path / kept / ADAPTER).is_file()


@pytest.mark.ranks
def test_a_hash_that_nothing_explains_is_nondeterminism(project: Copy) -> None:
    """
    Same inputs, code and environment, and another adapter: either chance or a false manifest.
    """
    changed = edited(project, lambda run: run["outputs"][1].update(sha256="0" * 64))

    done = project.doit("reproduce", "-m", str(changed), "--json")

    verdict = told(done.output)
    assert 1 == done.status
    assert ("different", "nondeterminism", ADAPTER) == (verdict["verdict"], verdict["why"], verdict["first"])
    assert [{"a": "0" * 64, "section": "outputs", "key": "adapter/adapters.safetensors.sha256"}] == [
        {key: value for key, value in difference.items() if key != "b"} for difference in verdict["differences"]
    ]


@pytest.mark.ranks
def test_altered_and_missing_inputs_make_it_impossible(project: Copy) -> None:
    """
    Every such input is named before anything is built.
    """
    project.edit(SOURCE, "row_id", "row-id")
    (project.path / TEMPLATE).unlink()
    now = files.sha256(project.path / SOURCE)
    was = files.read_json(project.path / RUN)["inputs"]["sources"][0]["sha256"]

    by_task, by_command = project.doit("reproduce:smoke"), project.doit("reproduce", "-m", RUN, "--json")

    assert (1, 2) == (by_task.status, by_command.status)
    assert "impossible" == told(by_command.output)["verdict"]
    assert [
        f"{TEMPLATE}: is missing; the run cannot be made again without it",
        f"{SOURCE}: is altered: its sha256 is {now}, and the run was made from {was}; restore it",
    ] == told(by_command.output)["problems"]
    assert "Traceback" not in by_task.output


def test_a_build_that_fails_makes_it_impossible(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The clean folder stays, to be looked at.
    """
    verdict = stopped(project, lambda run: None, monkeypatch)

    assert (IMPOSSIBLE, ("building smoke again: was not started",)) == (verdict.word, verdict.problems)
    assert Path(verdict.folder).is_dir()


def test_the_clean_folder_holds_the_manifests_recipe_and_nothing_built(
    project: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Rows, model and adapter of today must not leak in, and no run cache may answer for the build.
    """
    folder = Path(stopped(project, lambda run: run["recipe"]["train"].update(seed=7), monkeypatch).folder)
    shutil.rmtree(folder / "thunder_train")
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    sources = {source["path"] for source in files.read_json(project.path / RUN)["inputs"]["sources"]}
    templates = {str(path.relative_to(project.path)) for path in (project.path / "templates").rglob("*.j2")}
    assert {"dodo.py", "pyproject.toml", "thunder.toml", "recipes/smoke.toml", *sources, *templates} == found
    assert "seed = 7" in (folder / "recipes/smoke.toml").read_text(encoding="utf-8")
    assert "cache_limit_gb = 0.0" in (folder / "thunder.toml").read_text(encoding="utf-8")


def test_a_manifest_cannot_set_variables_of_the_ranks(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    LD_PRELOAD from a stranger's manifest would run their code; hosts and variables are those of today's thunder.toml.
    """
    harm = {"envs": ["LD_PRELOAD=/tmp/evil.so"], "hosts": [{"ssh": "evil"}], "python": "evil"}

    folder = Path(stopped(project, lambda run: run["recipe"]["cluster"].update(harm), monkeypatch).folder)

    assert "evil" not in (folder / "thunder.toml").read_text(encoding="utf-8")


def test_a_remote_run_needs_a_cluster_of_its_size(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The manifest tells no host, so today's cluster of that name lends its own.
    """
    remote = {"local": False, "name": "macs"}
    impossible = [
        stopped(project, lambda run: run["recipe"]["cluster"].update(remote, **change), monkeypatch).problems
        for change in ({"ranks": 3}, {"name": "none"})
    ]
    folder = Path(stopped(project, lambda run: run["recipe"]["cluster"].update(remote), monkeypatch).folder)

    assert ("thunder.toml: clusters.macs: has 2 hosts over ring; the run needs 3 hosts over ring",) == impossible[0]
    what = "thunder.toml: clusters.none: is missing; the run needs a cluster of that name with 2 hosts over ring"
    assert (what,) == impossible[1]
    assert 'ssh = "mac5"' in (folder / "thunder.toml").read_text(encoding="utf-8")


def test_a_model_folder_is_checked_and_linked(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Gigabytes are not copied, and only files that the lock names are there.
    """
    shutil.copytree(project.path / "runs/models/nano/files", project.path / "models/tiny")
    (project.path / "models/tiny/notes.json").write_text("{}")
    change = {"kind": "path", "path": "models/tiny"}

    folder = Path(stopped(project, lambda run: run["recipe"]["model"].update(change), monkeypatch).folder)
    links = {path.name for path in (folder / "models/tiny").iterdir() if path.is_symlink()}
    (project.path / "models/tiny/config.json").write_text("{}")
    altered = stopped(project, lambda run: run["recipe"]["model"].update(change), monkeypatch)

    assert {file["path"] for file in files.read_json(project.path / RUN)["model"]["files"]} == links
    assert "model nano: config.json: is altered: its sha256 is " in altered.problems[0]


def test_a_model_outside_the_project_is_where_today_says(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The manifest tells an absolute path by its file name only.
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
    Nothing is fetched: the locked commit is in the local cache or the run cannot be made.
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

    assert ("model nano: config.json: is missing; the run cannot be made again without it",) == missing.problems
    assert "a" * 40 == files.read_json(folder / "runs/models/nano/model.lock.json")["commit"]


HOSTILE: dict[str, tuple[Change, str]] = {
    "recipe name": (
        lambda run: run["recipe"].update(name="../../x"),
        "recipe.name: '../../x' holds characters that do not belong there",
    ),
    "dataset name": (
        lambda run: run["recipe"]["dataset"].update(name="a/b"),
        "recipe.dataset.name: 'a/b' holds characters that do not belong there",
    ),
    "template": (
        lambda run: run["recipe"]["dataset"].update(template="../secret"),
        "recipe.dataset: '../secret' leads out of the project",
    ),
    "source": (
        lambda run: run["inputs"]["sources"][0].update(path="/etc/passwd"),
        "inputs: '/etc/passwd' leads out of the project",
    ),
    "control character": (
        lambda run: run["inputs"]["template"].update(path="a\x1b[2Jb"),
        "inputs: 'a\\x1b[2Jb' leads out of the project",
    ),
    "model file": (
        lambda run: run["model"]["files"][0].update(path="../../.ssh/id"),
        "model.files: '../../.ssh/id' leads out of the project",
    ),
    "output twice": (lambda run: run["outputs"].append(run["outputs"][0]), "outputs: 'adapter/adapter_config.json' "),
    "schema": (lambda run: run.update(schema="thunder.run/9"), "has schema 'thunder.run/9', and this version reads "),
    "no recipe": (
        lambda run: run["recipe"].pop("train"),
        "is not the manifest of a run: Object missing required field",
    ),
    "wrong type": (
        lambda run: run["recipe"].update(name=3),
        "is not the manifest of a run: Expected `str`, got `int` - at `$.recipe.name`",
    ),
}


@pytest.mark.parametrize("case", sorted(HOSTILE))
def test_a_hostile_manifest_is_refused(built: Copy, tmp_path: Path, case: str) -> None:
    """
    Names and paths in it would become files here.
    """
    change, expected = HOSTILE[case]
    (tmp_path / "runs/smoke").mkdir(parents=True)
    shutil.copy(built.path / RUN, tmp_path / RUN)
    path = edited(Copy(tmp_path), change)

    with pytest.raises(ThunderError) as caught:
        manifest.read(path)

    assert str(caught.value).startswith(f"{path}: {expected}")


def test_a_manifest_that_was_edited_by_hand_is_refused(built: Copy, tmp_path: Path) -> None:
    """
    run_id is the hash of what the run is made from.
    """
    run = files.read_json(built.path / RUN)
    run["recipe"]["train"]["seed"] = 1
    files.write_json(tmp_path / "manifest.json", run)

    with pytest.raises(ThunderError, match=f"run_id: is '{run['run_id']}', and what it is made from gives '"):
        manifest.read(tmp_path / "manifest.json")


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '"x"', "NaN", "[" * 100_000, '{"schema": ' * 5_000, '{"schema": "\\ud800"}', "\0\xff"]
)
def test_what_is_no_manifest_is_told_without_a_traceback(tmp_path: Path, text: str) -> None:
    """
    Garbage, endless nesting, half a surrogate.
    """
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))

    with pytest.raises(ThunderError) as caught:
        manifest.read(tmp_path / "manifest.json")

    assert str(caught.value).startswith(f"{tmp_path / 'manifest.json'}: ")


def test_every_wrong_key_of_its_recipe_is_told(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The recipe in a manifest passes the same checks as a file.
    """

    def change(run: dict[str, Any]) -> None:
        run["recipe"]["train"].update(num_iters="many", learnin_rate=1)
        run["recipe"]["model"].update(layers=[1])

    with pytest.raises(ThunderError) as caught:
        stopped(project, change, monkeypatch)

    path = project.path / "edited.json"
    assert [
        f"{path}: models.nano.layers: must be a whole number, is [1]; change its type",
        f"{path}: train.learnin_rate: unknown key 'learnin_rate'; did you mean 'learning_rate'?",
        f"{path}: train.num_iters: must be a whole number, is 'many'; change its type",
    ] == str(caught.value).splitlines()


def test_an_input_without_its_hash_makes_it_impossible(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A source that the recipe reads and the manifest does not vouch for could be anything.
    """
    verdict = stopped(project, lambda run: run["inputs"]["sources"].pop(0), monkeypatch)

    assert (f"{SOURCE}: has no sha256 in the manifest",) == verdict.problems


@pytest.mark.ranks
def test_mistakes_at_the_command_line_are_one_line(project: Copy) -> None:
    """
    Status 3, what is wrong and how to mend it.
    """
    path = edited(project, lambda run: run["recipe"].update(name="../x"))
    none, hostile = project.doit("reproduce"), project.doit("reproduce", "-m", str(path))
    (project.path / RUN).unlink()
    missing = project.doit("reproduce:smoke")

    mend = "`doit reproduce -m PATH`, or `doit reproduce:NAME` for a recipe"
    assert (3, f"doit reproduce: needs one manifest; {mend}\n") == (none.status, none.output)
    assert (3, 1) == (hostile.status, len(hostile.output.splitlines()))
    assert 1 == missing.status
    assert f"{RUN}: is missing; run `./doit manifest:smoke`" in missing.output
    assert not any("Traceback" in done.output for done in (none, hostile, missing))
