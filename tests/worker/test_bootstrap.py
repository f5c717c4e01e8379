"""Files that come by environment, and OpenBLAS before mlx."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from thunder_train.core import blas
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
    """An environment without OpenBLAS."""
    monkeypatch.setattr(blas, "PACKAGE", "no-such-package")
    monkeypatch.delenv(blas.WARNED, raising=False)
    monkeypatch.delenv("MLX_RANK", raising=False)
    bootstrap.preload.cache_clear()
    yield monkeypatch
    bootstrap.preload.cache_clear()


@linux
def test_without_openblas_rank_0_warns_once_with_the_cure(
    without_openblas: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The reference BLAS is silent and 30 times slower: without a warning users cannot know why a run takes a day.
    """
    assert {"blas": "reference", "blas_kernel": "", "blas_threads": "1"} == bootstrap.preload()
    bootstrap.preload.cache_clear()
    bootstrap.preload()
    lines = capsys.readouterr().err.splitlines()

    assert 1 == len(lines)
    assert lines[0].startswith(f"thunder: {blas.SLOW}: {sys.prefix}: no-such-package is not installed; run ./doit")


@linux
@pytest.mark.parametrize("name", ["MLX_RANK", bootstrap.MPI_RANK])
def test_other_ranks_do_not_warn(
    without_openblas: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """
    Eight ranks would say the same thing eight times.
    """
    without_openblas.setenv(name, "1")
    bootstrap.preload()

    assert "" == capsys.readouterr().err


@linux
def test_a_damaged_library_is_reported_and_not_loaded(
    without_openblas: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """
    The loader's own words do not say what to do.
    """
    library = tmp_path / "openblas.so"
    library.write_text("cut off")
    without_openblas.setattr(blas, "library", lambda: library)

    assert "reference" == bootstrap.preload()["blas"]
    assert f"remove {library}, and it will be made again" in capsys.readouterr().err


@linux
def test_the_library_is_that_of_the_environment_and_is_recorded() -> None:
    """
    The libopenblas of a distribution is another version, with other bits, on each machine.
    """
    loaded = bootstrap.preload()

    assert f"openblas {version(blas.PACKAGE)}" == loaded["blas"]
    assert "/thunder-openblas/" in Path("/proc/self/maps").read_text()
    assert "libopenblas.so.0" not in Path("/proc/self/maps").read_text()


@linux
@pytest.mark.parametrize(
    ("processor", "has_avx2", "kernel"),
    [("x86_64", True, "Haswell"), ("x86_64", False, None), ("aarch64", False, "ARMV8"), ("riscv64", False, None)],
)
def test_every_machine_of_a_kind_uses_one_kernel(
    without_openblas: pytest.MonkeyPatch, processor: str, has_avx2: bool, kernel: str | None
) -> None:
    """
    OpenBLAS would choose by processor, and each of its kernels adds in another order.
    """
    without_openblas.setattr(bootstrap.platform, "machine", lambda: processor)
    without_openblas.setattr(bootstrap, "_has_avx2", lambda: has_avx2)
    without_openblas.setenv("OPENBLAS_CORETYPE", "")
    without_openblas.delenv("OPENBLAS_CORETYPE")
    bootstrap.preload()

    assert kernel == os.environ.get("OPENBLAS_CORETYPE")
    assert "1" == os.environ["OPENBLAS_NUM_THREADS"]


def test_transformers_gives_no_advice() -> None:
    """
    It would print that PyTorch is missing whenever it is imported before mlx_lm, which silences it.
    """
    program = "import thunder_train.worker, transformers"
    env = {name: value for name, value in os.environ.items() if not name.startswith("TRANSFORMERS_")}

    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.mlx
@pytest.mark.parametrize(("device", "calls"), [("gpu", ["wired", 2_000_000_000]), ("cpu", [])])
def test_memory_is_limited_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch, device: str, calls: list[Any]) -> None:
    """
    A CPU's memory is not wired, and its allocator gives freed memory back.
    """
    import mlx.core as mx
    import mlx_lm.utils

    made: list[Any] = []
    monkeypatch.setattr(mx, "default_device", lambda: SimpleNamespace(type=getattr(mx, device)))
    monkeypatch.setattr(mlx_lm.utils, "maybe_set_recommended_wired_limit", lambda: made.append("wired"))
    monkeypatch.setattr(mx, "set_cache_limit", made.append)
    bootstrap.limit_gpu_memory()

    assert calls == made


def test_a_tracker_is_imported_only_where_a_recipe_names_it(tmp_path: Path) -> None:
    """
    mlx-lm imports wandb wherever it is installed: seconds in every rank, and folders that a killed rank leaves.
    """
    (tmp_path / "wandb.py").write_text("def init(**_): print('begun')\n")
    lines = [
        "import sys; from pathlib import Path; from thunder_train.worker import bootstrap, trackers",
        "bootstrap.hide_trackers(); bootstrap.preload(); import mlx_lm.tuner; print(sys.modules['wandb'])",
        "trackers.tracker(('wandb',), 'p', '', Path('.'), {})",
    ]
    root = Path(bootstrap.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{root}"}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ("None\nbegun\n", 0) == (done.stdout, done.returncode), done.stderr
