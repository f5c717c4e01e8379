"""Each benchmark program runs: --tiny takes seconds, measures nothing worth quoting and writes nothing."""

import subprocess
import sys

import pytest

from tests.helpers.project_copy import PROJECT
from tests.system.cluster.lab import missing


def tiny(program: str) -> str:
    """Output of a benchmark's tiny mode, which must change no file of the project."""
    argv = [sys.executable, f"benchmarks/{program}.py", "--tiny"]
    before = results()
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, timeout=600, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert before == results()
    return done.stdout


def results() -> dict[str, int]:
    """Time of every file and folder that a benchmark writes to."""
    written = [*(PROJECT / "benchmarks").glob("*.md"), PROJECT / "docs", *(PROJECT / ".thunder").glob("bench*")]
    return {str(path): path.stat().st_mtime_ns for path in written}


@pytest.mark.ranks
@pytest.mark.slow
def test_build() -> None:
    """
    The generated project must build, and the program stops unless exactly the right tasks run.
    """
    output = tiny("build")

    assert "| Thunder Train |" in output
    assert "| plain doit |" in output
    assert "| times the file is read, no-op | 0 |" in output
    assert "## Targets" not in output


def test_data() -> None:
    """
    The order of the source rows must not change the data set.
    """
    assert "1000 rows, same bytes from shuffled lines: True" in tiny("data")


@pytest.mark.mlx
def test_tokenizer_matrix() -> None:
    """
    The worker's targets are those of the template's generation prompt.
    """
    output = tiny("tokenizer_matrix")

    assert "| tiny | equal | equal | equal | equal |" in output
    assert "| tiny | 2.25 | 1.20 | all letters |" in output


@pytest.mark.slow
@pytest.mark.ranks
def test_train() -> None:
    """
    Our training and mlx-lm's print the lines that the program times.
    """
    output = tiny("train")

    for side in ("ours", "mlx-lm, not compiled", "ours, 1 rank"):
        assert f"uniform  {side}: " in output


@pytest.mark.slow
@pytest.mark.ranks
def test_train_real() -> None:
    """
    Both programs print the lines that are timed, a model is packed into 4 bits, and our program measures all losses.
    """
    output = tiny("train_real")

    for side in ("float32-4  ours", "float32-4  mlx-lm, not compiled", "4bit-all  ours"):
        assert f"{side}: " in output


@pytest.mark.slow
@pytest.mark.mlx
def test_train_vocabulary() -> None:
    """
    A model with a vocabulary that is larger than its tokenizer's trains, and its peak is that of a rank.
    """
    assert "| 512 | this code | " in tiny("train_vocabulary")


@pytest.mark.slow
@pytest.mark.cluster
def test_cluster() -> None:
    """
    A run over ssh gives the same files as a local one.
    """
    if reason := missing():
        pytest.skip(reason)

    assert "differ: []" in tiny("cluster")
