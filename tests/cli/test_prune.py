"""doit prune lists what nobody needs, and removes nothing else."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from doit.task import Task

from tests.helpers.project_copy import Copy
from thunder_train.build.run_cache import RunCache
from thunder_train.cli import prune
from thunder_train.core import files

SIGNS = {"runs": "launch.sh", "data": "dropped.jsonl", "runs/models": "model.lock.json"}


def tasks(folder: Path, **more: Any) -> list[Task]:
    """Those of a recipe, a dataset and a model named kept."""
    meta = {"cache": RunCache(folder / ".thunder/cache", 10**6)}
    return [Task(f"{kind}:kept", None, meta=meta, **more) for kind in ("manifest", "data", "model", "evaluate")]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run, a dataset and a model that have an owner."""
    for folder, sign in SIGNS.items():
        files.write_text(tmp_path / folder / "kept" / sign, "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(project: Path, **more: Any) -> dict[str, str]:
    """{path: why} of all that is listed."""
    return {str(item.path): item.why for item in prune.unneeded(tasks(project, **more))}


@pytest.mark.parametrize(("folder", "noun"), [("runs", "recipe"), ("data", "dataset"), ("runs/models", "model")])
def test_a_folder_without_an_owner_is_listed(project: Path, folder: str, noun: str) -> None:
    """
    By its name; what no stage can have made is somebody's own.
    """
    files.write_text(project / folder / "old" / SIGNS[folder], "")
    files.write_text(project / folder / "notes/ideas.txt", "")

    assert {f"{folder}/old": f"no {noun} is named old"} == listed(project)


def test_a_folder_that_a_stage_reads_stays(project: Path) -> None:
    """
    A dataset may be made of the answers of an earlier run.
    """
    files.write_text(project / "runs/old/predictions.jsonl", "")

    assert {} == listed(project, file_dep=["runs/old/predictions.jsonl"])


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (".thunder/partial/0123456789abcdef/0000002.safetensors", "checkpoints that no training goes on from"),
        (".thunder/last/0123456789abcdef/0000004.safetensors", "checkpoints that no training goes on from"),
        (".thunder/partial/answers-old/answers.jsonl", "answers of an evaluation or a correction of no recipe"),
        (".thunder/partial/correct-old/rows.jsonl", "answers of an evaluation or a correction of no recipe"),
        (".thunder/partial/answers-kept/answers.jsonl", ""),
        (".thunder/partial/correct-kept/rows.jsonl", ""),
        (".thunder/staging/train-kept-999999999/x", "its process has ended"),
        (f".thunder/staging/train-kept-{os.getppid()}/x", ""),
        (".thunder/tokens/old.tokens", "tokens that nobody read for 30 days"),
        (".thunder/state.sqlite.damaged", "was set aside because it was damaged"),
        (".thunder/reproduce/abc/thunder.toml", "a run made again, kept to be looked at"),
        (".thunder/cache/blobs/00/old", "no entry of the run cache names it"),
        (".thunder/state.sqlite", ""),
        ("runs/index.html", ""),
        ("data/sources/rows.jsonl", ""),
    ],
)
def test_what_builds_left_is_listed(project: Path, path: str, why: str) -> None:
    """
    And nothing that a process writes or a build goes on from.
    """
    files.write_text(project / path, "x")
    old = time.time() - 40 * 86400
    os.utime(project / path, (old, old))

    assert ([why] if why else []) == [*listed(project).values()]


def test_a_run_that_is_being_made_again_is_not_listed(project: Path) -> None:
    """
    Its lock is held.
    """
    files.write_text(project / ".thunder/reproduce/abc/thunder.toml", "")
    lock = project / ".thunder/reproduce/abc.lock"
    with subprocess.Popen(["flock", str(lock), "sleep", "60"]) as holder:
        while not lock.exists() or len(listed(project)) == 2:
            time.sleep(0.02)
        assert {} == listed(project)
        holder.kill()


def test_links_are_removed_and_not_followed(project: Path) -> None:
    """
    Neither one in a folder nor one in place of a folder, nor a whole folder of runs that lies elsewhere.
    """
    files.write_text(project / "elsewhere/launch.sh", "mine")
    files.write_text(project / "runs/old/launch.sh", "")
    (project / "runs/old/link").symlink_to(project / "elsewhere")
    (project / "runs/moved").symlink_to(project / "elsewhere")
    items = [*prune.unneeded(tasks(project))]
    assert ["runs/moved", "runs/old"] == [str(item.path) for item in items]
    for item in items:
        prune.remove_item(item)

    assert ["kept", "models"] == sorted(os.listdir("runs"))
    assert "mine" == (project / "elsewhere/launch.sh").read_text()
    (project / "runs").rename("disk")
    (project / "runs").symlink_to("disk")
    files.write_text(project / "disk/old/launch.sh", "")
    assert {} == listed(project)


def test_records_and_tracked_files_stay(project: Path) -> None:
    """
    A committed manifest says what a run was; its folder stays for it.
    """
    for name in ("launch.sh", "manifest.json", "report.md", "logs/rank-0.log"):
        files.write_text(project / "runs/old" / name, "123")
    [item] = [prune.without_kept(item, {"runs/old/report.md"}) for item in prune.unneeded(tasks(project))]

    assert (6, ("runs/old/manifest.json", "runs/old/report.md")) == (item.bytes, item.kept)
    prune.remove_item(item)
    assert ["manifest.json", "report.md"] == sorted(os.listdir("runs/old"))


@pytest.mark.ranks
def test_nothing_is_removed_unless_it_is_asked_for(built: Copy, tmp_path: Path) -> None:
    """
    The whole command, in a project of which nothing that is needed is listed.
    """
    subprocess.run(["cp", "-r", built.path, tmp_path / "copy"], check=True)
    copy = Copy(tmp_path / "copy")
    assert (0, "nothing lies here that nobody needs\n") == ((done := copy.doit("prune")).status, done.output)
    (copy.path / "recipes/smoke.toml").rename(copy.path / "recipes/renamed.toml")
    copy.edit("thunder.toml", 'recipes = ["smoke"]', 'recipes = ["renamed"]')

    rows = json.loads(copy.doit("prune", "--json").output)
    assert [("runs/smoke", False)] == [(row["path"], rows["removed"]) for row in rows["items"]]
    done = copy.doit("prune", "--remove")

    assert 0 == done.status
    assert "     kept  runs/smoke/manifest.json  a record, or in git; --records removes it too\n" in done.output
    assert ["manifest.json"] == os.listdir(copy.path / "runs/smoke")
    copy.doit("prune", "--remove", "--records")
    assert not (copy.path / "runs/smoke").exists()
