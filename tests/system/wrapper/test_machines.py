"""Which Python ./doit takes, and what it says of machines on which MLX does not run."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT
from tests.helpers.wrapper import MADE, VENV, fake_program, lines, run


def test_a_python_that_is_too_old_is_reported(clone: Path) -> None:
    """
    tomllib came with 3.11.
    """
    fake_program(clone, "old", '[ "$1" = --version ] && echo "Python 3.9.6" && exit 0; exit 1')

    done = run(clone, PYTHON="old")

    assert 3 == done.returncode
    assert "./doit: Python 3.11 to 3.14 is needed, for which MLX has packages; found: Python 3.9.6" in done.stderr


def test_a_python_without_venv_is_reported(clone: Path) -> None:
    """
    Debian ships Python without it.
    """
    fake_program(clone, "bare", f'[ "$1" = -m ] && exit 1; exec {sys.executable} "$@"')

    done = run(clone, PYTHON="bare")

    assert 3 == done.returncode
    assert "./doit: this Python has no venv module" in done.stderr
    assert "python3-venv" in done.stderr


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        (
            "sys.platform='darwin'; platform.machine=lambda: 'x86_64'",
            "is built for x86_64, and MLX needs Apple silicon",
        ),
        (
            "sys.platform='darwin'; platform.machine=lambda: 'arm64'; platform.mac_ver=lambda: ('13.6.1', '', '')",
            "this is macOS 13.6.1, and MLX needs macOS 14 or newer",
        ),
        ("sys.platform='linux'; platform.libc_ver=lambda: ('', '')", "another C library than glibc, such as musl"),
        ("sys.platform='linux'; platform.libc_ver=lambda: ('glibc', '2.31')", "this Linux has glibc 2.31"),
        ("sys.platform='linux'; platform.machine=lambda: 'riscv64'", "this is Linux on riscv64"),
        ("sys.maxsize = 2**31 - 1", "here is a 32-bit program"),
        ("sys.platform='freebsd14'", "this is freebsd14"),
    ],
)
def test_a_machine_for_which_mlx_has_no_package_is_named(clone: Path, patch: str, reason: str) -> None:
    """
    pip's "no matching distribution" looks like a lack of network.
    """
    code = f"import platform, sys; {patch}; exec(sys.stdin.read())"
    fake_program(clone, "python3", f'[ "$1" != - ] || exec {sys.executable} -c "{code}"\nexec {sys.executable} "$@"')

    done = run(clone, "list")

    assert (3, []) == (done.returncode, lines(clone, "installed"))
    assert "./doit: this machine cannot run it: " in done.stderr
    assert reason in done.stderr
    assert "network" not in done.stderr


def test_a_python_that_is_too_new_is_reported(clone: Path) -> None:
    """
    MLX has no wheel for it, and pip would only say that no version was found.
    """
    fake_program(clone, "python3.15", '[ "$1" = --version ] && echo "Python 3.15.0" && exit 0; exit 1')

    done = run(clone, PYTHON="python3.15")

    assert 3 == done.returncode
    assert "Python 3.11 to 3.14 is needed, for which MLX has packages; found: Python 3.15.0" in done.stderr


def test_a_python_of_the_path_that_serves_is_taken_before_a_newer_one(clone: Path) -> None:
    """
    python3 may be too new or too old while python3.14 lies beside it.
    """
    fake_program(clone, "python3.14", f'MINOR=3.14\n{VENV}exec {sys.executable} "$@"')
    (clone.parent / "bin/python3.made").rename(clone.parent / "bin/python3.14.made")
    fake_program(clone, "python3", "exit 1")

    assert 7 == run(clone, "list").returncode
    assert (clone / ".venv/lib/python3.14").is_dir()


def test_uv_brings_a_python_where_the_machine_has_none(clone: Path) -> None:
    """
    A Mac comes with Python 3.9, and who has uv expects it to take care of that.
    """
    for name in ("python3", "python3.14", "python3.13", "python3.12", "python3.11"):
        fake_program(clone, name, "exit 1")
    fake_program(clone, "3.13", f'{VENV}exec {sys.executable} "$@"')
    fake_program(clone, "3.13.made", MADE)
    home = clone.parent
    fake_program(
        clone,
        "uv",
        f"""echo "$*" >>"{home}/uv"
case "$*" in
  "python find"*) [ -f "{home}/fetched" ] && echo "{home}/bin/3.13" ;;
  "python install"*) touch "{home}/fetched" ;;
  venv*) exec "$3" -m venv "$4" ;;
esac""",
    )

    done = run(clone, "list")

    assert 7 == done.returncode, done.stderr
    assert "./doit: no Python 3.11 to 3.14 is installed; uv downloads one\n" in done.stderr
    install = "pip install --python .venv-"
    assert [True] == [line.startswith(install) for line in lines(clone, "uv") if line.startswith("pip")]


def test_the_pythons_of_the_wrapper_are_those_of_the_package() -> None:
    """
    pip refuses to install the package where ./doit would, or the other way round, if they differ.
    """
    needs = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["requires-python"]
    text = (PROJECT / "doit").read_text()

    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", needs).groups()
    assert f"RANGE='Python 3.{low} to 3.{int(high) - 1}'" in text
    assert f"not (3, {low}) <= sys.version_info < (3, {high})" in text
    assert f"'{needs}'" in text
    assert re.findall(r"python3\.(\d+)", re.search("^PYTHONS=(.*)$", text, re.MULTILINE)[1]) == [
        str(minor) for minor in reversed(range(int(low), int(high)))
    ]


def test_over_ssh_a_mac_finds_the_pythons_that_its_owner_has(clone: Path) -> None:
    """
    A shell that ssh starts reads no profile: its PATH holds Apple's Python 3.9 alone.
    """
    for name in ("python3", "python3.13", "python3.12", "python3.11"):
        fake_program(clone, name, "exit 1")
    (clone.parent / ".local/bin").mkdir(parents=True)
    fake_program(clone, "python3.14", f'{VENV}exec {sys.executable} "$@"')
    (clone.parent / "bin/python3.14").rename(clone.parent / ".local/bin/python3.14")
    (clone.parent / "bin/python3.made").rename(clone.parent / ".local/bin/python3.14.made")

    assert 3 == run(clone, "list", OSTYPE="linux-gnu").returncode
    assert 7 == run(clone, "list", OSTYPE="darwin23").returncode
