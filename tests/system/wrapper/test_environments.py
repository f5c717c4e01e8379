"""Which environment ./doit uses, when it makes another one, and which ones it removes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.wrapper import (
    MADE,
    VENV,
    environments,
    fake_pip,
    fake_program,
    lines,
    lock,
    make_environment,
    run,
    sources,
)


def test_it_runs_doit_from_any_directory_with_the_same_arguments_and_status(clone: Path, tmp_path: Path) -> None:
    """
    A space in the path and in an argument must survive.
    """
    make_environment(clone, status=7)

    done = run(clone, "train:smoke", "a b", cwd=tmp_path)

    assert (7, f"{clone}: -P -m thunder_train.cli train:smoke a b\n") == (done.returncode, done.stdout)


def test_an_environment_is_made_when_the_lock_has_changed(clone: Path) -> None:
    """
    The lock is empty here, so nothing is fetched. The path to the project's folder is relative.
    """
    make_environment(clone)
    fake_program(clone, "real", f'exec {sys.executable} "$@"')
    lock(clone, "--no-binary rapidfuzz\n")

    done = run(clone, "list", PYTHON="real")

    assert "./doit: making .venv from requirements.lock with Python 3." in done.stderr
    assert "No module named 'thunder_train'" in done.stderr
    assert "--no-binary rapidfuzz\n" == (clone / ".venv/requirements.lock").read_text()
    assert "../../../..\n" == next((clone / ".venv").rglob("thunder_train.pth")).read_text()


def test_the_new_environment_is_made_beside_the_old_one_which_is_found_again(clone: Path) -> None:
    """
    A branch with another lock, and back: a command that runs in the old one keeps it, and nothing is installed twice.
    """
    ran = []
    for text in ("a==1\n", "b==1\n", "a==1\n"):
        lock(clone, text)
        assert 7 == run(clone, "list").returncode
        ran.append(lines(clone, "ran")[-1])
        assert ran[-1] == f"{(clone / '.venv').resolve()}/bin/python"

    assert (ran[0], 2, 2) == (ran[2], len(set(ran)), len(lines(clone, "installed")))
    assert (clone / ".venv").is_symlink()


def test_environments_that_nothing_uses_are_removed_but_for_the_last_two(clone: Path) -> None:
    """
    Each takes a gigabyte. One in which a training runs stays.
    """
    lock(clone, "a==1\n")
    run(clone, "list")
    used = f"{(clone / '.venv').resolve()}/bin/python"
    with subprocess.Popen([used, "60"], executable="/bin/sleep") as training:
        for text in ("b==1\n", "c==1\n", "d==1\n"):
            lock(clone, text)
            run(clone, "list")
        left = {path.joinpath("requirements.lock").read_text() for path in environments(clone)}
        training.kill()
    lock(clone, "e==1\n")
    run(clone, "list")

    assert {"a==1\n", "c==1\n", "d==1\n"} == left
    assert {"d==1\n", "e==1\n"} == {path.joinpath("requirements.lock").read_text() for path in environments(clone)}


@pytest.mark.parametrize("is_used", [True, False])
def test_a_folder_venv_of_an_earlier_version_becomes_one_of_them(clone: Path, is_used: bool) -> None:
    """
    Not while something runs in it: the command then uses the new environment without the link.
    """
    lock(clone, "old==1\n")
    make_environment(clone)
    lock(clone, "new==1\n")
    training = None
    if is_used:
        training = subprocess.Popen([".venv/bin/python", "60"], executable="/bin/sleep", cwd=clone)

    done = run(clone, "list")
    if training:
        training.kill()
        training.wait()

    assert (7, is_used) == (done.returncode, not (clone / ".venv").is_symlink())
    assert "new==1\n" == (Path(lines(clone, "ran")[-1]).parent.parent / "requirements.lock").read_text()
    if not is_used:
        lock(clone, "old==1\n")
        assert f"{clone}: -P -m thunder_train.cli list\n" == run(clone, "list").stdout


def test_a_link_to_an_environment_elsewhere_is_replaced_and_its_target_kept(clone: Path, tmp_path: Path) -> None:
    """
    Several clones may share one.
    """
    make_environment(clone)
    (clone / ".venv").rename(tmp_path / "shared")
    (clone / ".venv").symlink_to(tmp_path / "shared")
    lock(clone, "new==1\n")
    run(clone, "list")

    assert clone == (clone / ".venv").resolve().parent
    assert (tmp_path / "shared/bin/python").exists()


def test_a_comment_in_the_lock_makes_no_environment(clone: Path) -> None:
    """
    The copy of the lock follows, because a host's environment is compared by its bytes.
    """
    lock(clone, "a==1\n")
    run(clone, "list")
    lock(clone, "# why\na==1 # so\n\n")

    assert (7, "") == ((done := run(clone, "list")).returncode, done.stderr)
    assert 1 == len(lines(clone, "installed"))
    assert "# why\na==1 # so\n\n".strip() == (clone / ".venv/requirements.lock").read_text().strip()


@pytest.mark.parametrize("how", ["gone", "does not start", "another version"])
def test_an_environment_whose_python_is_broken_is_made_again(clone: Path, how: str) -> None:
    """
    `brew upgrade` removes the Python below an environment; a newer Python in its place looks in another folder.
    """
    run(clone, "list")
    python = (clone / ".venv").resolve() / "bin/python"
    python.unlink()
    if how == "gone":
        python.symlink_to("/opt/homebrew/opt/python@3.11/bin/python3.11")
    else:
        python.write_text("#!/bin/sh\nexit 127\n" if how == "does not start" else "#!/bin/sh\nexit 42\n")
        python.chmod(0o755)

    done = run(clone, "list")

    assert (7, 2) == (done.returncode, len(lines(clone, "installed")))
    assert "./doit: making .venv" in done.stderr
    assert [(clone / ".venv").resolve()] == environments(clone)


def test_tasks_for_developers_get_an_environment_that_then_serves_all(clone: Path) -> None:
    """
    A user never waits for mypy and a browser; who has them does not go to and fro between two environments.
    """
    for name in ("requirements-dev.lock", "requirements-parquet.lock"):
        lock(clone, "a==1\nb==1\n", name)

    for words in (["list"], ["train:smoke", "--", "test"], ["-v", "1", "lint"], ["list"], ["test"]):
        assert 7 == run(clone, *words).returncode

    assert [["requirements.lock"], ["requirements-dev.lock"]] == sources(clone)
    assert [(clone / ".venv").resolve()] == environments(clone)
    assert "./doit: making .venv" not in run(clone, "status", EXTRA="parquet").stderr


@pytest.mark.parametrize("change", ["another lock", "another Python", "no Python"])
def test_an_extra_is_added_and_stays_in_the_next_environment(clone: Path, change: str) -> None:
    """
    A user who reads Parquet files says so once.
    """
    lock(clone, "a==1\nb==1\n", "requirements-parquet.lock")
    assert 7 == run(clone, "list", EXTRA="parquet").returncode
    first = (clone / ".venv").resolve()
    if change == "another lock":
        lock(clone, "a==2\n")
    elif change == "no Python":
        (first / "bin/python").unlink()
    else:
        (first / "bin/python").write_text("#!/bin/sh\nexit 42\n")

    assert 7 == run(clone, "list").returncode
    assert [["requirements-parquet.lock"]] * 2 == sources(clone)
    assert (change == "another lock") == (first in environments(clone))


@pytest.mark.parametrize("extra", ["parket", "../x", "*", "parquet,parket"])
def test_an_extra_that_does_not_exist_is_named_with_those_that_do(clone: Path, extra: str) -> None:
    """
    A typing error must not look like a success.
    """
    lock(clone, "b==1\n", "requirements-parquet.lock")

    done = run(clone, "list", EXTRA=extra)

    assert 3 == done.returncode
    assert f"./doit: EXTRA={extra}: there is no such extra\n./doit: choose of: parquet\n" == done.stderr
    assert [] == lines(clone, "installed")


def test_developers_tasks_do_not_go_on_without_their_packages(clone: Path) -> None:
    """
    An environment of users has no pytest: going on with it would end in a riddle.
    """
    lock(clone, "b==1\n", "requirements-dev.lock")
    run(clone, "list")
    fake_pip(clone, "echo 'Retrying after connection broken' >&2; exit 1")

    done = run(clone, "test")

    assert (3, 1) == (done.returncode, len(lines(clone, "ran")))
    assert "the packages of requirements-dev.lock could not be installed, see above: no package index" in done.stderr
    assert 7 == run(clone, "list").returncode


def test_the_python_that_the_user_names_gets_an_environment_of_its_own(clone: Path) -> None:
    """
    After `brew upgrade`, or on a host whose Python is not this machine's, nothing has to be removed by hand.
    """
    asked = 'case "$*" in *%d.%d*) echo 3.12; exit ;; esac'
    fake_program(clone, "python3.12", f'MINOR=3.12\n{asked}\n{VENV}exec {sys.executable} "$@"')
    fake_program(clone, "python3.12.made", MADE)
    run(clone, "list")
    first = (clone / ".venv").resolve()

    for _ in range(2):
        assert 7 == run(clone, "list", PYTHON="python3.12").returncode

    assert 2 == len(lines(clone, "installed"))
    assert (clone / ".venv/lib/python3.12").is_dir()
    assert sorted([first, (clone / ".venv").resolve()]) == environments(clone)
    assert (7, "") == ((done := run(clone, "list")).returncode, done.stderr)
