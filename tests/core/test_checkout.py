"""The commit of a project's folder, as a page names it."""

import subprocess
from pathlib import Path

import pytest

from thunder_train.core import checkout


def git(folder: Path, *words: str) -> str:
    """Run git as a person of these tests."""
    person = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *person, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_a_checkout_has_its_commit_and_says_whether_its_files_were_changed(tmp_path: Path) -> None:
    """
    A run of changed files cannot be found by its commit; what a build writes itself is no change.
    """
    (tmp_path / "runs/a").mkdir(parents=True)
    for name in ("recipe.toml", "runs/a/manifest.json"):
        (tmp_path / name).write_text("1")
    git(tmp_path, "init", "-q")
    assert "" == checkout.commit(tmp_path)

    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")[:12]
    (tmp_path / "runs/a/manifest.json").write_text("2")
    (tmp_path / "notes.txt").write_text("not tracked")
    assert head == checkout.commit(tmp_path)

    (tmp_path / "recipe.toml").write_text("2")
    assert f"{head} and changes" == checkout.commit(tmp_path)


def test_there_is_no_commit_outside_a_checkout_or_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A project need not be in git.
    """
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "" == checkout.commit(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert "" == checkout.commit(tmp_path)
