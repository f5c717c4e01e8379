"""Only what a process left that has ended is deleted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from thunder_train.build import staging


def test_the_folder_of_a_living_process_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Its training writes there. What an ended process left goes, with all in it, and links are not followed.
    """
    monkeypatch.chdir(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("")
    root = tmp_path / ".thunder/staging"
    for name in (f"train-a-{os.getppid()}", f"train-a-{ended.pid}/runs", f"train-a-{os.getpid()}/runs"):
        (root / name).mkdir(parents=True)
    (root / f"train-b-{ended.pid}").symlink_to(tmp_path / "kept")
    (root / "notes").write_text("")

    staging.sweep()

    assert [f"train-a-{os.getppid()}"] == [path.name for path in root.iterdir()]
    assert (tmp_path / "kept/file").exists()
    assert f".thunder/staging/train-b-{os.getpid()}" == str(staging.folder("train:b"))


@pytest.mark.parametrize("kind", ["a link", "a file", "missing"])
def test_what_is_no_folder_is_set_aside(tmp_path: Path, kind: str) -> None:
    """
    A link could point anywhere.
    """
    (tmp_path / "elsewhere/train-a-1").mkdir(parents=True)
    root = tmp_path / "staging"
    if kind == "a link":
        root.symlink_to(tmp_path / "elsewhere")
    elif kind == "a file":
        root.write_text("")

    staging.sweep(root)

    assert (tmp_path / "elsewhere/train-a-1").exists()
    assert not os.path.lexists(root)
