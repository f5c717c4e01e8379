"""Files that come by environment, and OpenBLAS before mlx."""

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from thunder_train.worker import bootstrap
from thunder_train.worker.bootstrap import remove_files, unpack_files

linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate")


def test_a_file_in_the_environment_becomes_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    MLX reads its addresses from a file, and the launcher writes none on other machines.
    """
    monkeypatch.setenv("THUNDER_FILE_MLX_HOSTFILE", '[["10.0.0.1:1"]]')
    monkeypatch.setenv("MLX_HOSTFILE", "")

    unpack_files()
    path = Path(os.environ["MLX_HOSTFILE"])
    content = path.read_text()
    remove_files()

    assert '[["10.0.0.1:1"]]' == content
    assert not path.exists()


@pytest.fixture
def without_openblas(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine on which the loader finds no OpenBLAS."""

    def missing(name: str, mode: int) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    bootstrap.preload.cache_clear()
    yield monkeypatch
    bootstrap.preload.cache_clear()


@linux
def test_without_openblas_rank_0_warns_once_with_the_cure(
    without_openblas: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The reference BLAS is silent and 30-70 times slower: without a warning users cannot know why a run takes a day.
    """
    assert {"blas": "reference", "blas_kernel": "", "blas_threads": "1"} == bootstrap.preload() == bootstrap.preload()
    assert bootstrap.WARNING + "\n" == capsys.readouterr().err
    assert "apt-get install -y libopenblas0-pthread" in bootstrap.WARNING


@linux
def test_other_ranks_do_not_warn(without_openblas: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Eight ranks would say the same thing eight times.
    """
    without_openblas.setenv("MLX_RANK", "1")
    bootstrap.preload()

    assert "" == capsys.readouterr().err
