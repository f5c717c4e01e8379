"""./doit makes the environment once, runs doit from any folder, and reports what is missing."""

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT, Copy

VENV = """\
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin" "$3/lib/python3.11/site-packages"
  cp "$0.made" "$3/bin/python"
  exit
fi
"""
"""What a fake interpreter does for `-m venv FOLDER`."""
MADE = f"""\
case "$*" in
  *-m\\ pip*) echo "$2 $3" >>"$HOME/installed"; [ ! -f "$HOME/pip" ] || . "$HOME/pip" ;;
  *thunder_train.cli*) echo "$0" >>"$HOME/ran"; exit 7 ;;
  *) exec {sys.executable} "$@" ;;
esac
"""
"""What the interpreter of a fake environment does: pip installs nothing, and the command ends with status 7."""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A project folder with the wrapper, an empty home, and an environment whose doit only prints its arguments."""
    project = tmp_path / "a project"
    project.mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(PROJECT / "doit", project / "doit")
    (project / "requirements.lock").write_text("# nothing\n")
    fake_program(project, "python3", f'{VENV}exec {sys.executable} "$@"')
    fake_program(project, "python3.made", MADE)
    return project


def environ(clone: Path, **env: str) -> dict[str, str]:
    """The test's folder first on PATH, no uv, and a home of its own."""
    return {"PATH": f"{clone.parent / 'bin'}:/usr/bin:/bin", "HOME": str(clone.parent), **env}


def run(clone: Path, *arguments: str, cwd: Path | None = None, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run ./doit with the fake interpreter, unless PYTHON names another."""
    command = ["bash", str(clone / "doit"), *arguments]
    return subprocess.run(
        command, cwd=cwd or clone, env=environ(clone, **env), capture_output=True, text=True, check=False
    )


def fake_program(clone: Path, name: str, script: str) -> None:
    """Write a program that is first on PATH."""
    (clone.parent / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
    (clone.parent / "bin" / name).chmod(0o755)


def fake_pip(clone: Path, script: str) -> None:
    """What pip does in every environment that is made from now on."""
    (clone.parent / "pip").write_text(f"{script}\n")


def lines(clone: Path, name: str) -> list[str]:
    """What the fake interpreters noted: a line in `installed` per call of pip, one in `ran` per command."""
    path = clone.parent / name
    return path.read_text().splitlines() if path.exists() else []


def environments(clone: Path) -> list[Path]:
    """Every whole environment."""
    return sorted(path.parent for path in clone.glob(".venv-*/requirements.lock"))


def lock(clone: Path, text: str) -> None:
    """Write another requirements.lock."""
    (clone / "requirements.lock").write_text(text)


def make_environment(clone: Path, status: int = 0) -> None:
    """A current environment whose interpreter prints its folder and its arguments."""
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").write_text(f'#!/bin/sh\necho "$PWD: $@"\nexit {status}\n')
    (clone / ".venv/bin/python").chmod(0o755)
    shutil.copy(clone / "requirements.lock", clone / ".venv/requirements.lock")


def test_it_runs_doit_from_any_directory_with_the_same_arguments_and_status(clone: Path, tmp_path: Path) -> None:
    """
    A space in the path and in an argument must survive.
    """
    make_environment(clone, status=7)

    done = run(clone, "train:smoke", "a b", cwd=tmp_path)

    assert (7, f"{clone}: -P -m thunder_train.cli train:smoke a b\n") == (done.returncode, done.stdout)


def test_a_python_that_is_too_old_is_reported(clone: Path) -> None:
    """
    tomllib came with 3.11.
    """
    fake_program(clone, "old", '[ "$1" = --version ] && echo "Python 3.9.6" && exit 0; exit 1')

    done = run(clone, PYTHON="old")

    assert 3 == done.returncode
    assert "./doit: Python 3.11 or newer is needed; found: Python 3.9.6" in done.stderr


def test_a_python_without_venv_is_reported(clone: Path) -> None:
    """
    Debian ships Python without it.
    """
    fake_program(clone, "bare", f'[ "$1" = -m ] && exit 1; exec {sys.executable} "$@"')

    done = run(clone, PYTHON="bare")

    assert 3 == done.returncode
    assert "./doit: this Python has no venv module" in done.stderr
    assert "python3-venv" in done.stderr


def test_packages_that_cannot_be_fetched_are_reported_and_tried_again(clone: Path) -> None:
    """
    Without a network or with a wrong hash the environment stays unfinished, and the next ./doit starts over.
    """
    lock(clone, f"rapidfuzz==3.14.6 --hash=sha256:{'0' * 64}\n")

    done = run(clone, PYTHON=sys.executable, PIP_NO_INDEX="1")

    assert 3 == done.returncode
    assert "./doit: the packages of requirements.lock could not be installed, see above" in done.stderr
    assert "connect and run ./doit again" in done.stderr
    assert ([], False) == (list(clone.glob(".venv-2*")), (clone / ".venv").exists())


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


@pytest.mark.parametrize(
    ("says", "reason", "cure"),
    [
        ("Retrying after connection broken by NewConnectionError", ": no package index was reached", "connect and run"),
        ("OSError: [Errno 28] No space left on device", ": the disk is full", "free some space"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES", ": a package has another hash", "do not trust where it came from"),
        ("Downloading a; No matching distribution found for mlx", ": one has no version for this machine", "PYTHON="),
        ("mlx==1 has no wheels with a matching platform tag", ": one has no version for this machine", "PYTHON="),
        ("No matching distribution found for mlx", "", "connect and run ./doit again"),
    ],
)
@pytest.mark.parametrize("has_old", [True, False])
def test_what_pip_could_not_do_is_named_and_an_old_environment_stays_in_use(
    clone: Path, says: str, reason: str, cure: str, has_old: bool
) -> None:
    """
    Without a network a changed lock must cost nothing but a warning; and no mistake looks like a lack of network.
    """
    if has_old:
        lock(clone, "old==1\n")
        run(clone, "list")
    lock(clone, "new==1\n")
    fake_pip(clone, f"echo '{says}' >&2; exit 1")
    failed = "the packages of requirements.lock could not be installed"

    done = run(clone, "list")

    if not has_old:
        assert (3, True) == (done.returncode, says in done.stderr)
        assert f"./doit: {failed}, see above{reason}" in done.stderr
        assert cure in done.stderr.splitlines()[-1]
        assert [] == list(clone.glob(".venv-2*"))
        return
    warning = f"./doit: going on with the environment of an earlier requirements.lock; {failed}{reason}"
    assert (7, True) == (done.returncode, done.stderr.splitlines()[-1].startswith(warning))
    lock(clone, "old==1\n")
    assert (7, "") == ((done := run(clone, "list")).returncode, done.stderr)
    assert 1 == len(environments(clone))


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


@pytest.mark.parametrize("content", [None, "", "999999\n", "1\n", "not a number\n"])
def test_a_lock_left_by_a_killed_run_is_taken_over(clone: Path, content: str | None) -> None:
    """
    Whatever an earlier ./doit left, also when its number has become that of another process.
    """
    (clone / ".venv.lock").mkdir()
    (clone / ".venv-lock").write_text(content or "")
    if content is not None:
        (clone / ".venv.lock/pid").write_text(content)

    assert 7 == run(clone, "list").returncode
    assert (clone / ".venv/requirements.lock").exists()
    assert not (clone / ".venv.lock").exists()


def test_the_script_may_change_while_it_runs(clone: Path) -> None:
    """
    bash reads a script as it goes, and `git pull` may come in the minutes of an installation.
    """
    fake_pip(clone, 'printf "%20000s\\nexit 9\\n" "" >"$HOME/a project/doit"')

    assert 7 == run(clone, "list").returncode


def test_two_at_once_make_one_environment(clone: Path) -> None:
    """
    The second waits, and says so.
    """
    fake_pip(clone, "sleep 1")
    command = ["bash", str(clone / "doit"), "list"]
    both = [subprocess.Popen(command, env=environ(clone), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(each.communicate()[1] for each in both)

    assert [7, 7] == [each.returncode for each in both]
    assert 1 == len(lines(clone, "installed"))
    assert 1 == said.count("./doit: another ./doit makes an environment; waiting for it\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_in_the_middle_leaves_no_environment_that_looks_whole(clone: Path, number: signal.Signals) -> None:
    """
    After kill -9 a half made one stays, with its installer; the next ./doit waits for neither.
    """
    fake_pip(clone, 'sleep 30 & echo $! >"$HOME/sleeping"; wait')
    command = ["bash", str(clone / "doit"), "list"]
    with subprocess.Popen(command, env=environ(clone), stderr=subprocess.DEVNULL) as process:
        while not lines(clone, "sleeping"):
            time.sleep(0.05)
        process.send_signal(number)
        status = process.wait()
    left = list(clone.glob(".venv-2*"))
    fake_pip(clone, "")
    start = time.monotonic()
    done = run(clone, "list")
    os.kill(int(lines(clone, "sleeping")[0]), signal.SIGKILL)

    assert (-9 if number == signal.SIGKILL else 128 + number) == status
    assert (number == signal.SIGKILL) == bool(left)
    assert (7, True) == (done.returncode, time.monotonic() - start < 20)
    assert [(clone / ".venv").resolve()] == environments(clone)


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


def test_a_terminal_shows_how_far_the_installation_is(clone: Path) -> None:
    """
    It took 136 silent seconds on a slow line.
    """
    fake_pip(clone, "echo Downloading mlx; sleep 2.5")
    ours, theirs = pty.openpty()
    command = ["bash", str(clone / "doit"), "list"]
    with subprocess.Popen(command, env=environ(clone), stderr=theirs) as process:
        process.wait()
    os.close(theirs)
    said = os.read(ours, 10000).decode()
    os.close(ours)

    assert " s Downloading mlx" in said


def test_the_lock_names_no_registry_and_hashes_every_package() -> None:
    """
    One lock serves Linux and macOS; the address of a mirror would not work elsewhere.
    """
    lines = (PROJECT / "requirements.lock").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith((" ", "#"))]

    assert not [line for line in lines if "://" in line or line.startswith("-")]
    assert all(line.endswith("\\") for line in packages)
    assert {"mlx-cpu==0.32.4", "mlx-metal==0.32.4"} <= {line.split(" ")[0] for line in packages}


@pytest.mark.ranks
@pytest.mark.slow
def test_modules_of_the_user_do_not_stand_in_for_others(fresh: Copy) -> None:
    """
    A random.py beside dodo.py is the user's affair: doit, the preflight's ranks and the workers import Python's own.
    """
    if not (Path(sys.prefix) / "requirements.lock").exists():
        pytest.skip("needs the environment that ./doit makes")
    (fresh.path / ".venv").symlink_to(sys.prefix)
    for name in ("doit", "requirements.lock"):
        shutil.copy(PROJECT / name, fresh.path / name)
    for name in ("random", "types", "typing", "warnings", "json", "tempfile", "numpy", "doit", "toml"):
        (fresh.path / f"{name}.py").write_text("raise SystemExit('a module of the user was imported')\n")
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}

    done = subprocess.run(
        ["bash", str(fresh.path / "doit"), "train:smoke"],
        env=environment, cwd=fresh.path / "recipes", capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (0, True) == (done.returncode, ".  train:smoke\n" in done.stdout), done.stdout + done.stderr
    assert (fresh.path / "runs/smoke/adapter/adapters.safetensors").exists()
    by_hand = subprocess.run(
        ["bash", "runs/smoke/launch.sh", "--adapter-path", ".thunder/by_hand"],
        env=environment, cwd=fresh.path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 0 == by_hand.returncode, by_hand.stdout + by_hand.stderr
