"""A run that began with the adapter of another run is reproduced after that one."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.manifests import RUN, stopped
from tests.helpers.project_copy import Copy
from thunder_train.core import files

WEIGHTS, SETTINGS = "adapter/adapters.safetensors", "adapter/adapter_config.json"
SECOND = 'extends = "smoke"\n[train]\nstart_from = "recipe:smoke"\nlearning_rate = 1e-3\n'


def begun(project: Copy, folder: str = "runs/smoke/adapter", given: str = "recipe:smoke") -> Any:
    """A change of smoke's manifest into that of a second recipe, which began with an adapter in a folder."""
    names = [f"{folder}/{Path(name).name}" for name in (WEIGHTS, SETTINGS)]
    start = [{"path": name, "sha256": files.sha256(project.path / name)} for name in names]

    def change(run: dict[str, Any]) -> None:
        run["recipe"]["name"] = "second"
        run["recipe"]["train"]["start_from"] = given
        run["inputs"]["start"] = start

    return change


@pytest.mark.slow
def test_the_clean_folder_holds_the_run_that_it_began_with(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Both recipes, on the tables that they share, and no adapter: the first is trained again. Its gate does not run.
    """
    folder = Path(stopped(project, begun(project), monkeypatch).folder)

    assert ["second.toml", "smoke.toml"] == sorted(path.name for path in (folder / "recipes").iterdir())
    assert 'start_from = "recipe:smoke"' in (folder / "recipes/second.toml").read_text(encoding="utf-8")
    assert "[evaluate" not in (folder / "recipes/smoke.toml").read_text(encoding="utf-8")
    assert not (folder / "runs").exists()


def test_a_start_without_its_manifest_makes_it_impossible(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Also one whose manifest of today makes another adapter; nothing is built then.
    """
    change = begun(project)
    run = files.read_json(project.path / RUN)
    made = next(entry for entry in run["outputs"] if entry["path"] == WEIGHTS)
    was = made["sha256"]

    def other(record: dict[str, Any]) -> None:
        change(record)
        record["inputs"]["start"][0]["sha256"] = "0" * 64

    assert (
        f"runs/smoke/manifest.json: makes the adapter {was}, and the run began with {'0' * 64}; "
        "restore the manifest of then with git",
    ) == stopped(project, other, monkeypatch).problems
    (project.path / RUN).rename(project.path / "kept.json")
    monkeypatch.setattr("tests.helpers.manifests.RUN", "kept.json")
    assert (
        "runs/smoke/manifest.json: is missing, and the run began with the adapter of 'smoke'; "
        "restore it with git, or run `./doit manifest:smoke`",
    ) == stopped(project, change, monkeypatch).problems


@pytest.mark.parametrize("name", ["../smoke", "second"])
def test_a_start_that_a_stranger_made_up_is_refused(project: Copy, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """
    A manifest from elsewhere must not choose which files are read.
    """
    verdict = stopped(project, begun(project, given=f"recipe:{name}"), monkeypatch)

    expected = {"second": "begins with itself, by 'second'", "../smoke": "'../smoke' names no recipe"}[name]
    assert (f"recipe.train.start_from: {expected}",) == verdict.problems


def test_a_folder_must_hold_the_same_bytes(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nothing can make them again.
    """
    place = project.path / "adapters/a"
    place.mkdir(parents=True)
    for name in (WEIGHTS, SETTINGS):
        (place / Path(name).name).write_bytes((project.path / "runs/smoke" / name).read_bytes())
    change = begun(project, "adapters/a", "adapters/a")
    folder = Path(stopped(project, change, monkeypatch).folder)
    assert (place / "adapters.safetensors").read_bytes() == (folder / "adapters/a/adapters.safetensors").read_bytes()
    (place / "adapters.safetensors").unlink()

    assert ("adapters/a/adapters.safetensors: is missing; the run cannot be reproduced without it",) == stopped(
        project, change, monkeypatch
    ).problems


@pytest.mark.ranks
@pytest.mark.slow
def test_a_chain_of_two_trainings_is_built_reproduced_and_follows_its_first(project: Copy) -> None:
    """
    The graph trains the first before the second; its adapter's bytes decide whether the second is stale.
    """
    (project.path / "recipes/second.toml").write_text(SECOND)
    done = project.doit("manifest:second")
    assert 0 == done.status, done.output
    run = files.read_json(project.path / "runs/second/manifest.json")
    assert [files.sha256(project.path / "runs/smoke" / name) for name in (WEIGHTS, SETTINGS)] == [
        entry["sha256"] for entry in run["inputs"]["start"]
    ]
    again = project.doit("reproduce:second")
    assert 0 == again.status, again.output
    assert ": identical\n" in again.output

    (project.path / "recipes/smoke.toml").rename(project.path / "recipes/first.toml")
    (project.path / "recipes/second.toml").write_text(SECOND.replace("smoke", "first"))
    project.edit("recipes/first.toml", "description", 'name = "first"\ndescription')
    renamed = project.doit("train:second")
    assert (0, []) == (renamed.status, [name for name in renamed.ran if name.startswith("train")]), renamed.output
    project.edit("recipes/first.toml", "learning_rate = 1e-6", "learning_rate = 1e-5")
    changed = project.doit("train:second")
    assert ["train:first", "train:second"] == [name for name in changed.ran if name.startswith("train")]
