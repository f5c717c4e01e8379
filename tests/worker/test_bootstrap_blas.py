"""OpenBLAS before mlx, and what is said without it."""

import ctypes
import sys

import pytest

from thunder_train.worker import bootstrap

linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate")


@pytest.fixture
def without_openblas(monkeypatch):
    """A machine on which the loader finds no OpenBLAS."""

    def missing(name, mode):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    bootstrap.preload.cache_clear()
    yield monkeypatch
    bootstrap.preload.cache_clear()


@linux
def test_without_openblas_rank_0_warns_once_with_the_cure(without_openblas, capsys):
    """
    The reference BLAS is silent and 30-70 times slower: nobody would know why a run takes a day.
    """
    assert {"blas": "reference", "blas_kernel": "", "blas_threads": "1"} == bootstrap.preload() == bootstrap.preload()
    assert bootstrap.WARNING + "\n" == capsys.readouterr().err
    assert "apt-get install -y libopenblas0-pthread" in bootstrap.WARNING


@linux
def test_other_ranks_do_not_warn(without_openblas, capsys):
    """
    Eight ranks would say the same thing eight times.
    """
    without_openblas.setenv("MLX_RANK", "1")
    bootstrap.preload()

    assert "" == capsys.readouterr().err
