"""The developers' command: what it proves, what it raises, and what it refuses."""

import json
import subprocess
from pathlib import Path

import pytest

from proof import __main__ as command
from proof import matrix
from thunder_train.core import revisions

BEFORE = {"train": {"revision": 3, "code": "a"}, "evaluate": {"revision": 1, "code": "b"}}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose last commit of revisions.json holds BEFORE, and code of which train was edited since."""
    file = tmp_path / "revisions.json"
    monkeypatch.setattr(command, "PROJECT", tmp_path)
    monkeypatch.setattr(revisions, "FILE", file)
    monkeypatch.setattr(revisions, "hashes", lambda _: {"train": "edited", "evaluate": "b"})
    file.write_text(json.dumps(BEFORE))
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=A", "-c", "user.email=a@b", "commit", "--quiet", "--message", "Begin")
    return tmp_path


def git(folder: Path, *words: str) -> str:
    """What git says in a folder."""
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def content(clone: Path) -> dict[str, object]:
    """What revisions.json says now."""
    table: dict[str, object] = json.loads((clone / "revisions.json").read_text())
    return table


def test_equal_outputs_renew_the_hash_and_keep_the_revision(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A rewritten loop that gives the same bits costs nobody a training. Only the edited stage is proven.
    """
    asked: list[object] = []
    monkeypatch.setattr(matrix, "differences", lambda *arguments: asked.append(arguments) or [])

    assert 0 == command.main([])
    assert [(clone, git(clone, "rev-parse", "HEAD"), ["train"])] == asked
    assert {**BEFORE, "train": {"revision": 3, "code": "edited"}} == content(clone)
    assert "train: revision 3, proven\nevaluate: revision 1, unchanged\n" == capsys.readouterr().out


def test_another_bit_is_refused(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Nothing is written, and the way out is named.
    """
    monkeypatch.setattr(matrix, "differences", lambda *_: ["train: runs/lora/adapter/adapters.safetensors"])

    assert 1 == command.main([])
    assert BEFORE == content(clone)
    assert (
        "train: runs/lora/adapter/adapters.safetensors\n"
        f"train: these outputs are not those of commit {git(clone, 'rev-parse', 'HEAD')[:12]}, so revisions.json stays "
        "as it is; if that is meant, raise the stage that changed: python -m proof --raise train\n"
    ) == capsys.readouterr().err


def test_a_raised_stage_needs_no_proof(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Its numbers changed on purpose. Asking twice before a commit raises it once.
    """
    monkeypatch.delattr(matrix, "differences")

    assert [0, 0] == [command.main(["--raise", "train"]) for _ in range(2)]
    assert {**BEFORE, "train": {"revision": 4, "code": "edited"}} == content(clone)
    assert "train: raised to revision 4\nevaluate: revision 1, unchanged\n" * 2 == capsys.readouterr().out


def test_a_stage_without_a_committed_revision_is_raised(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    There is nothing to compare its code with.
    """
    (clone / "revisions.json").write_text('{"evaluate": {"revision": 1, "code": "b"}}')
    git(clone, "-c", "user.name=A", "-c", "user.email=a@b", "commit", "--quiet", "--all", "--message", "Forget train")

    assert 2 == command.main([])
    assert "revisions.json: no commit has a revision of train; add --raise train\n" == capsys.readouterr().err
