"""Random damage to any file that a build keeps or made, again and again, each time followed by a build.

Each build must end with the bytes of an undamaged one, or with an error that says what is in the way; never with a
wrong byte, never with a traceback.
"""

import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from tests.helpers.outputs import results
from tests.helpers.project_copy import Copy, start_doit, wait_for

pytestmark = [pytest.mark.ranks, pytest.mark.slow]

SEED = int(os.environ.get("CAMPAIGN_SEED", "20261126"))
CORRUPTIONS = int(os.environ.get("CORRUPTIONS", "60"))
INTERRUPTED = int(os.environ.get("INTERRUPTED", "8"))
HARMS = ("flip", "flip", "truncate", "zero", "replace", "delete", "folder", "link", "pipe")
MADE = ("runs/smoke", "data/agp-nko-corrections")


def harm(path: Path, kind: str, chance: random.Random) -> None:
    """Damage a file."""
    data = path.read_bytes()
    place = chance.randrange(max(1, len(data)))
    if kind in ("flip", "zero", "truncate", "replace"):
        flipped = data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :] if data else b"x"
        zeroed = data[:place] + bytes(len(data[place : place + 4096])) + data[place + 4096 :]
        noise = chance.randbytes(max(1, len(data)))
        path.write_bytes({"flip": flipped, "zero": zeroed, "truncate": data[:place], "replace": noise}[kind])
        return
    path.unlink()
    if kind == "folder":
        (path / "inside").mkdir(parents=True)
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "pipe":
        os.mkfifo(path)


def plain_files(project: Copy, *folders: str) -> list[Path]:
    """All files below folders of a project that can be damaged."""
    found = [path for folder in folders for path in (project.path / folder).rglob("*")]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def remove(path: Path) -> None:
    """Do what an error asks for: take away what is in the way."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def rebuild(project: Copy, path: Path, kind: str, expected: dict[str, bytes]) -> str:
    """Build, and check what was made. "mended", or "told" if a person had to take something away first."""
    where = f"{kind} {path.relative_to(project.path)}"
    is_plain = path.is_file() and not path.is_symlink()
    harmed = path.read_bytes() if is_plain else None
    done = project.doit()
    assert "Traceback" not in done.output, f"{where}: {done.output}"
    how = "mended"
    if done.status:
        assert path.name in done.output, f"{where}: {done.output}"
        remove(path)
        again = project.doit()
        assert 0 == again.status, f"{where}: {again.output}"
        how = "told"
    made = results(project)
    assert expected.keys() == made.keys(), where
    assert [] == [name for name in expected if expected[name] != made[name]], where
    is_target = path.is_relative_to(project.path / "runs") and "logs" not in path.parts
    assert not (is_target and harmed is not None and path.read_bytes() == harmed), where
    assert [] == project.doit().ran, where
    return how


def test_damage_never_gives_a_wrong_byte(project: Copy) -> None:
    """
    Of state, hashes, cache, tokens, rows, adapters and reports, by bits, pages and kinds of files.
    """
    project.doit()
    expected, chance = results(project), random.Random(SEED)  # noqa: S311
    for _ in range(CORRUPTIONS):
        folder = chance.choice((".thunder", ".thunder", *MADE))
        path, kind = chance.choice(plain_files(project, folder)), chance.choice(HARMS)
        if kind == "pipe" and path.suffix == ".log":
            continue  # whoever makes a pipe of a log reads it
        harm(path, kind, chance)
        print(kind, path.relative_to(project.path), rebuild(project, path, kind, expected), flush=True)


def test_damage_to_what_a_killed_build_left_never_gives_a_wrong_byte(project: Copy) -> None:
    """
    Checkpoints, answers, staging and SQLite's -wal exist only then.
    """
    project.doit()
    expected, chance = results(project), random.Random(SEED)  # noqa: S311
    for number in range(INTERRUPTED):
        stage, target = (("train", "adapter/done.json"), ("evaluate", "eval.json"))[number % 2]
        project.forget_cache()
        (project.path / "runs/smoke" / target).unlink()
        doit = start_doit(project, f"{stage}:smoke")
        wait_for(lambda doit=doit: doit.poll() is not None or any(plain_files(project, ".thunder/partial")), 120)  # type: ignore[misc]
        if doit.poll() is None:
            os.killpg(doit.pid, signal.SIGKILL)
        doit.communicate()
        left = plain_files(project, ".thunder/partial", ".thunder/staging")
        left += sorted(project.path.glob(".thunder/*.sqlite-wal"))
        path, kind = chance.choice(left or plain_files(project, ".thunder")), chance.choice(HARMS)
        harm(path, kind, chance)
        print(kind, path.relative_to(project.path), rebuild(project, path, kind, expected), flush=True)
