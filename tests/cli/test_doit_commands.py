"""doit's own commands in this project: run -a, clean, ignore, reset-dep, dumpdb, index."""

import json
import shutil
import subprocess

import pytest

from tests.helpers.project_copy import Copy

pytestmark = pytest.mark.ranks


def test_a_run_with_a_trains_again(project: Copy) -> None:
    """
    The run cache holds the outputs; -a means to run, not to restore.
    """
    done = project.doit("-a", "train:smoke")

    assert (0, []) == (done.status, done.restored)
    assert {"scripts:smoke", "train:smoke"} <= {*done.ran}
    assert [] == project.doit("train:smoke").ran


@pytest.mark.slow
def test_an_ignored_stage_is_skipped_and_told(project: Copy) -> None:
    """
    And so is all that comes after it, until `doit forget`.
    """
    project.edit("recipes/smoke.toml", "learning_rate = 1e-6", "learning_rate = 1e-5")
    project.doit("ignore", "train:smoke")
    done, why = project.doit(), project.doit("why", "--check", "evaluate:smoke")
    row = next(row for row in json.loads(project.doit("status", "--json").output) if row["recipe"] == "smoke")

    assert "!! train:smoke\n!! evaluate:smoke\n" in done.output
    assert "train:smoke" not in done.ran
    assert "evaluate:smoke: ignored; `doit forget train:smoke` ends that\n" in why.output
    assert ("ignored", 0) == (row["train"], why.status)
    project.doit("forget", "train:smoke")
    assert "train:smoke" in project.doit("train:smoke").ran


def git(project: Copy, *words: str) -> None:
    """git in the project."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *words], cwd=project.path, check=True, capture_output=True)


@pytest.mark.parametrize("words", ["-a", "manifest:smoke data:agp-nko-corrections model:nano report:smoke", "*", ""])
def test_clean_leaves_committed_files(project: Copy, words: str) -> None:
    """
    Manifests and locks whether they are committed yet or not, and each file that git tracks.
    """
    git(project, "init", "-q")
    git(project, "add", "-f", "runs/smoke/report.md")
    git(project, "commit", "-qm", "a report")
    records = ["data/agp-nko-corrections/manifest.json", "runs/smoke/manifest.json", "runs/models/nano/model.lock.json"]

    done = project.doit("clean", *words.split())

    assert 0 == done.status, done.output
    assert all((project.path / name).exists() for name in [*records, "runs/smoke/report.md"])
    assert not (project.path / "runs/smoke/report.html").exists()
    assert "manifest:smoke - keeping file 'runs/smoke/manifest.json'\n" in done.output
    assert "report:smoke - keeping file 'runs/smoke/report.md'\n" in done.output


def test_clean_needs_no_git(project: Copy) -> None:
    """
    An archive of the project has no .git; manifests and locks stay.
    """
    project.doit("clean", "-a")

    assert (project.path / "runs/smoke/manifest.json").exists()
    assert (project.path / "runs/models/nano/model.lock.json").exists()
    assert not (project.path / "data/agp-nko-corrections/train.jsonl").exists()


def test_reset_dep_takes_inputs_as_they_are(project: Copy) -> None:
    """
    As doit documents: a changed input no longer makes the stage stale; a changed recipe still does.
    """
    project.edit("templates/report.md.j2", "## Result", "## Results")
    assert "report:smoke: templates/report.md.j2: content changed\n" in project.doit("why", "report:smoke").output

    done = project.doit("reset-dep", "report:smoke")

    assert (0, "processed report:smoke\n") == (done.status, done.output)
    assert "report:smoke: up to date" in project.doit("why", "report:smoke").output


def test_dumpdb_shows_every_record(project: Copy) -> None:
    """
    doit's own reads only its dbm files.
    """
    done = project.doit("dumpdb")

    assert 0 == done.status
    assert "\ntrain:smoke -> {   '_values_:'" in done.output
    shutil.rmtree(project.path / ".thunder")
    assert (0, "") == (project.doit("dumpdb").status, project.doit("dumpdb").output)


def test_a_state_that_is_no_database_is_told(project: Copy) -> None:
    """
    In one line; a build would set it aside.
    """
    for name in ("-wal", "-shm", ""):
        path = project.path / f".thunder/state.sqlite{name}"
        path.unlink(missing_ok=True)
    path.write_text("no database" * 100)

    done = project.doit("dumpdb")

    expected = "warning: .thunder/state.sqlite is damaged (file is not a database); a build will begin a new one\n"
    assert (0, expected) == (done.status, done.output)


def test_index_builds_no_run_and_forgets_none(project: Copy) -> None:
    """
    The page shows the manifests that are there now, also of runs that no recipe makes; stale runs stay as they are.
    """
    project.edit("recipes/smoke.toml", "learning_rate = 1e-6", "learning_rate = 1e-5")
    page = project.path / "runs/index.html"
    shutil.copytree(project.path / "runs/smoke", project.path / "runs/gone")
    done = project.doit("index")
    assert (0, ["index"], True) == (done.status, done.ran, "gone" in page.read_text())

    shutil.rmtree(project.path / "runs/gone")
    project.doit("index")

    assert "gone" not in page.read_text()
