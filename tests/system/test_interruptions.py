"""Kills, signals, full disks and two builds at once, against the real doit: guarantees G5 to G13."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT, Copy, start_doit, wait_for

pytestmark = pytest.mark.ranks

ADAPTER = "runs/smoke/adapter/adapters.safetensors"
DISK = 8 << 20
"""Bytes of a small disk."""


def slow_training(project: Copy) -> None:
    """Make the training long enough to be interrupted: thousands of steps."""
    project.edit("recipes/smoke.toml", "num_iters = 4", "num_iters = 20000")
    project.edit("recipes/smoke.toml", "save_every = 2", "save_every = 20000")
    project.edit("recipes/smoke.toml", "eval_every = 2", "eval_every = 20000")
    shutil.rmtree(project.path / "runs/smoke/logs")  # those of the copied run


def training_runs(project: Copy) -> bool:
    """Whether rank 0 has completed its first steps."""
    log = project.path / "runs/smoke/logs/rank-0.log"
    return log.exists() and "step 3/" in log.read_text()


@contextlib.contextmanager
def paused(project: Copy) -> Iterator[None]:
    """Stop the ranks meanwhile: they can neither finish nor take the cores from the commands under test."""
    ranks = [int(process.name) for process in Path("/proc").iterdir() if _is_rank(process, project)]
    assert 2 == len(ranks)
    for rank in ranks:
        os.kill(rank, signal.SIGSTOP)
    yield
    for rank in ranks:
        os.kill(rank, signal.SIGCONT)


def ranks_of(project: Copy) -> list[str]:
    """Command lines of processes whose folder is the project."""
    commands = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if os.readlink(process / "cwd") == str(project.path):
                    commands.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
    return commands


@pytest.mark.slow
def test_g5_a_key_flipped_and_flipped_back(project: Copy) -> None:
    """The earlier outputs are restored from the run cache, verified by hash; nothing trains."""
    before = (project.path / ADAPTER).read_bytes()
    project.edit("recipes/smoke.toml", "learning_rate = 1e-6", "learning_rate = 1e-3")
    project.doit()
    assert before != (project.path / ADAPTER).read_bytes()
    project.edit("recipes/smoke.toml", "learning_rate = 1e-3", "learning_rate = 1e-6")

    done = project.doit()

    cheap = ["scripts:smoke", "report:smoke", "manifest:smoke"]
    assert (cheap, ["train:smoke", "evaluate:smoke"]) == (done.ran, done.restored)
    assert before == (project.path / ADAPTER).read_bytes()


def test_g5_a_damaged_entry_is_made_again(project: Copy) -> None:
    """The earlier outputs are verified by hash: a damaged entry is dropped and the stage runs."""
    adapter = project.path / ADAPTER
    good = adapter.read_bytes()
    adapter.unlink()
    for blob in (project.path / ".thunder/cache/blobs").rglob("*"):
        if blob.is_file() and blob.read_bytes() == good:
            blob.write_bytes(bytes(len(good)))

    done = project.doit("train:smoke")

    assert ["train:smoke"] == done.restored
    assert "adapters.safetensors is damaged; making it again" in done.output
    assert good == adapter.read_bytes()


@pytest.mark.slow
def test_g5_two_clones_share_a_folder(fresh: Copy, project: Copy, tmp_path: Path) -> None:
    """The folder is configurable, so a shared disk serves several clones."""
    for clone in (project, fresh):
        clone.edit("thunder.toml", 'recipes = ["smoke"]', f'recipes = ["smoke"]\ncache = "{tmp_path}/shared"')
    shutil.rmtree(project.path / ".thunder")
    stages = ["model:nano", "data:agp-nko-corrections", "scripts:smoke"]
    assert stages == project.doit(*stages).ran

    done = fresh.doit(*stages)

    assert (stages[2:], stages[:2]) == (done.ran, done.restored)
    audit = "data/agp-nko-corrections/audit.html"
    assert (project.path / audit).read_bytes() == (fresh.path / audit).read_bytes()
    kept = [json.loads(entry.read_text())["outputs"] for entry in (tmp_path / "shared/actions").iterdir()]
    assert not [name for names in kept for name in names if name.endswith((".sh", ".html", "hostfile.json"))]


def test_g6_killed_in_the_middle(project: Copy) -> None:
    """kill -9 at any moment: finished stages stay finished; a half-made target is never fresh."""
    good = (project.path / ADAPTER).read_bytes()
    slow_training(project)
    doit = start_doit(project)
    wait_for(lambda: training_runs(project))
    os.killpg(doit.pid, signal.SIGKILL)
    doit.wait()
    wait_for(lambda: ranks_of(project) == [])

    assert good == (project.path / ADAPTER).read_bytes()  # the old one stays until a new one is complete
    assert "train:smoke: was interrupted\n" in project.doit("why", "train:smoke").output
    shutil.copy(PROJECT / "recipes/smoke.toml", project.path / "recipes/smoke.toml")
    done = project.doit()
    assert [] == [stage for stage in done.ran if stage.startswith(("data", "model", "check"))]
    assert good == (project.path / ADAPTER).read_bytes()


def test_g6_a_killed_training_goes_on(project: Copy) -> None:
    """Training resumes from its last checkpoint; nothing of it is left when it has ended."""
    slow_training(project)
    for old, new in (("num_iters = 20000", "num_iters = 20"), ("save_every = 20000", "save_every = 2")):
        project.edit("recipes/smoke.toml", old, new)
    doit = start_doit(project, "train:smoke")
    wait_for(lambda: len(list(project.path.glob(".thunder/partial/*/*.safetensors"))) == 2)
    os.killpg(doit.pid, signal.SIGKILL)
    doit.wait()
    wait_for(lambda: ranks_of(project) == [])

    done = project.doit("train:smoke")

    assert (0, ["train:smoke"]) == (done.status, done.ran)
    assert "/20  goes on from here" in done.output
    assert [] == list(project.path.glob(".thunder/partial/*"))


def test_g7_an_input_changed_while_a_stage_ran(project: Copy) -> None:
    """
    The stage fails and names it, and its finished training stays: it goes on from there when the rows are as before.

    What decides nothing may change meanwhile: the recipe's timeouts, the form of a manifest, a comment of a script.
    """
    slow_training(project)
    project.edit("recipes/smoke.toml", "num_iters = 20000", "num_iters = 20")
    doit = start_doit(project, "train:smoke")
    wait_for(lambda: training_runs(project))
    rows, script = project.path / "data/agp-nko-corrections/train.jsonl", project.path / "runs/smoke/launch.sh"
    with paused(project):
        script.write_text(script.read_text() + "# edited\n")
        project.edit("data/agp-nko-corrections/manifest.json", "{", "{ ")
        project.edit("recipes/smoke.toml", "max_seq_len", "stall_timeout_s = 900\nmax_seq_len")
        rows.write_text(rows.read_text() + "\n")
    output = doit.communicate()[0]

    assert 1 == doit.returncode
    assert "train:smoke: while it ran, data/agp-nko-corrections/train.jsonl: content changed; run doit again" in output
    assert "train:smoke: failed: train:smoke: while it ran" in project.doit("why", "train:smoke").output

    done = project.doit("train:smoke")  # makes the rows again first

    assert (0, "train:smoke") == (done.status, done.ran[-1])
    assert "step 20/20  goes on from here" in done.output
    assert [] == list(project.path.glob(".thunder/partial/*"))


@pytest.mark.slow
def test_g12_two_builds_at_once(fresh: Copy) -> None:
    """The second waits, with one clear line; nothing is corrupted, and no stage runs twice."""
    first = start_doit(fresh)
    wait_for(lambda: (fresh.path / ".thunder/lock").exists() and (fresh.path / ".thunder/lock").read_text() != "")
    second = start_doit(fresh)
    outputs = [doit.communicate()[0] for doit in (first, second)]

    assert [0, 0] == [first.returncode, second.returncode]
    assert re.search(rf"another doit \(process {first.pid}: '.*'\) builds here; waiting for it to end\n", outputs[1])
    made = [line for output in outputs for line in output.splitlines() if line.startswith((".  ", "+  "))]
    assert 9 == len(made) == len(set(made))
    assert [] == fresh.doit().ran


def test_g12_no_command_disturbs_a_training(project: Copy) -> None:
    """Whatever the reporter, another run waits; a command that writes is refused; one that looks answers."""
    slow_training(project)
    doit = start_doit(project, "train:smoke")
    wait_for(lambda: training_runs(project))
    writes = ("clean -a", "forget -a", "reset-dep", "ignore train:smoke")
    looks = ("list --all --status", "info --no-status train:smoke", "dumpdb", "clean -n", "why", "status")
    with paused(project):
        waiting = [start_doit(project, "-r", reporter, "train:smoke") for reporter in ("json", "zero")]
        refused = [project.doit(*words.split()) for words in writes]
        looked = [project.doit(*words.split()) for words in looks]

    named = f"another doit (process {doit.pid}: "
    assert [(3, True)] * 4 == [(done.status, named in done.output) for done in refused]
    assert [0] * 6 == [done.status for done in looked]
    assert [None] * 3 == [run.poll() for run in (doit, *waiting)]
    assert [f"train-smoke-{doit.pid}"] == [path.name for path in (project.path / ".thunder/staging").iterdir()]
    for run in (*waiting, doit):
        run.send_signal(signal.SIGTERM)
        assert 128 + signal.SIGTERM == run.wait(30)


@pytest.mark.parametrize(
    ("program", "number", "arguments"),
    [
        ("thunder_train.cli", signal.SIGTERM, []),
        ("thunder_train.cli", signal.SIGINT, ["-n", "2"]),
        ("doit", signal.SIGINT, []),
        ("doit", signal.SIGTERM, ["-n", "2"]),
    ],
)
def test_g13_a_signal_ends_every_child(
    project: Copy, program: str, number: signal.Signals, arguments: list[str]
) -> None:
    """Every child ends; finished stages stay finished; no orphan writes later. Also under plain `python -m doit`."""
    good = (project.path / ADAPTER).read_bytes()
    slow_training(project)
    doit = start_doit(project, *arguments, program=program)
    wait_for(lambda: training_runs(project))
    assert "train:smoke: running since " in project.doit("why", "train:smoke").output
    doit.send_signal(number)
    output = doit.communicate(timeout=30)[0]

    if program != "doit":  # which ends in a traceback
        assert (128 + number, True, False) == (doit.returncode, "doit: interrupted\n" in output, "Traceback" in output)
    wait_for(lambda: ranks_of(project) == [])
    assert good == (project.path / ADAPTER).read_bytes()
    assert "scripts:smoke: up to date" in project.doit("why", "scripts:smoke").output


def test_a_rank_killed_for_memory_under_n_2_does_not_hang(project: Copy) -> None:
    """
    Plain `doit -n 2` waits forever when a worker process is killed; ours runs threads that wait for commands.
    """
    slow_training(project)
    doit = start_doit(project, "-n", "2", "train:smoke")
    wait_for(lambda: training_runs(project))
    victims = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _is_rank(p, project)]
    os.kill(victims[0], signal.SIGKILL)

    output = doit.communicate(timeout=30)[0]

    assert 1 == doit.returncode
    assert re.search(r"rank [01] \(127\.0\.0\.1\): ended by signal 9", output)
    assert "training smoke: ended with status 137" in output


def _is_rank(process: Path, project: Copy) -> bool:
    try:
        works_here = os.readlink(process / "cwd") == str(project.path)
        return works_here and b"thunder_train.worker\0" in (process / "cmdline").read_bytes()
    except OSError:
        return False


def test_a_damaged_state_file_is_rebuilt(project: Copy) -> None:
    """
    State survives a truncated or corrupt file: a warning, never a traceback, never a wrong "up to date".
    """
    for name in ("state.sqlite", "stats.sqlite"):
        path = project.path / ".thunder" / name
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 3])
    done = project.doit()

    assert 0 == done.status
    assert "Traceback" not in done.output
    assert "state.sqlite is damaged" in done.output
    cheap = {"check:smoke", "hostfile:smoke", "scripts:smoke", "report:smoke", "manifest:smoke"}
    assert (cheap, 4) == ({*done.ran}, len(done.restored))  # the run cache knows the rest
    assert [] == project.doit().ran


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk in memory, hardly larger than the project."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_a_clear_error(project: Copy, small_disk: Path) -> None:
    """
    It names the path, and earlier targets are unchanged.
    """
    runs = project.path / "runs"
    shutil.copytree(runs, small_disk / "runs")
    shutil.rmtree(runs)
    runs.symlink_to(small_disk / "runs")
    good = (project.path / ADAPTER).read_bytes()
    project.edit("recipes/smoke.toml", "learning_rate = 1e-6", "learning_rate = 1e-3")
    project.doit("scripts:smoke")
    with open(small_disk / "filler", "wb") as filler, contextlib.suppress(OSError):
        filler.write(bytes(DISK))

    done = project.doit("train:smoke")

    assert 1 == done.status
    assert "Traceback" not in done.output
    assert "No space left on device" in done.output
    assert "runs/smoke/" in done.output
    assert good == (project.path / ADAPTER).read_bytes()
    (small_disk / "filler").unlink()
    assert 0 == project.doit("train:smoke").status


def test_a_read_only_folder_is_a_clear_error(project: Copy, small_disk: Path) -> None:
    """
    It names the path, and earlier targets are unchanged.
    """
    shutil.copytree(project.path / "runs/smoke", small_disk / "smoke")
    shutil.rmtree(project.path / "runs/smoke")
    (project.path / "runs/smoke").symlink_to(small_disk / "smoke")
    project.edit("recipes/smoke.toml", "learning_rate = 1e-6", "learning_rate = 1e-3")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    done = project.doit("scripts:smoke")

    assert 1 == done.status
    assert "runs/smoke/launch.sh: cannot be written: Read-only file system; free or unlock it" in done.output


def test_a_project_that_cannot_be_written_is_a_clear_error(project: Copy, small_disk: Path) -> None:
    """
    Not even the state can be opened: one line, no traceback.
    """
    ignored = shutil.ignore_patterns(".thunder", "runs", "__pycache__")
    shutil.copytree(project.path, small_disk / "project", ignore=ignored)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    done = Copy(small_disk / "project").doit()

    assert 3 == done.status
    assert "Traceback" not in done.output
    assert ".thunder" in done.output
    assert "Read-only file system" in done.output
