"""Sync with faults: files that arrive damaged or in part change nothing, and every host's problem is reported."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.fake_hosts import WEIGHTS, Site, code, real, refusal, site
from thunder_train.cluster import sync, transfer

pytestmark = pytest.mark.skipif(not shutil.which("rsync"), reason="rsync missing: apt-get install rsync")
HOSTILE = "a b; $(touch pwned) 'x' \"y\""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site with a little code."""
    return code(site(tmp_path, monkeypatch))


def test_what_arrives_damaged_changes_nothing(here: Site) -> None:
    """
    A host is in the old state or in the new one: half of each could train with wrong results.
    """
    recipe = here.recipe()
    sync.sync(recipe, here.home)
    here.write("thunder_train/a.py", "A = 2\n")
    here.write("data/rows/train.jsonl", "other\n")
    damage = (
        'status=$?; [ "$1" = --server ] && [ -f thunder_train/a.py ] && echo "#" >>thunder_train/a.py; exit $status'
    )
    here.tool("rsync", f'#!/bin/sh\n{real("rsync")} "$@"\n{damage}\n')

    lines = refusal(sync.sync, recipe, here.home)

    hint = "run it again; if that does not help, check that host's memory and disk"
    assert [
        f"host {host}: thunder_train/a.py arrived damaged; nothing was changed there; {hint}"
        for host in ("mac4", "mac5")
    ] == lines
    assert "A = 1\n" == here.there("mac4", "thunder_train/a.py").read_text()
    assert "train\n" == here.there("mac4", "data/rows/train.jsonl").read_text()


def test_an_interrupted_transfer_is_invisible_and_continues(here: Site) -> None:
    """
    Arrived files wait outside of everything that is read, and the next sync uses them.
    """
    recipe = here.recipe()
    part = "mkdir -p runs/models/tiny/files; head -c 9000 /dev/urandom >runs/models/tiny/files/model.safetensors"
    here.tool("rsync", f'#!/bin/sh\n[ "$1" = --server ] || exec {real("rsync")} "$@"\n{part}\nexit 12\n')

    lines = refusal(sync.sync, recipe, here.home)

    assert ["host mac4", "host mac5"] == [line.partition(":")[0] for line in lines]
    assert lines[0].endswith("; run it again: it continues where it stopped")
    assert {} == here.tree("mac4")
    (here.tools / "rsync").unlink()
    sync.sync(recipe, here.home)
    assert WEIGHTS["model.safetensors"] == here.tree("mac4")["runs/models/tiny/files/model.safetensors"]


def test_hostile_names_stay_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Folders of a configuration and names of files reach remote shells: nothing in them may run.
    """
    here = site(tmp_path, monkeypatch, place=HOSTILE)
    here.write(f"templates/{HOSTILE}.j2", "x")
    recipe = here.recipe()

    synced = sync.sync(recipe, here.home)

    assert b"x" == here.tree("mac4")[f"templates/{HOSTILE}.j2"]
    assert [10, 10] == [host.sent for host in synced.hosts]
    assert [] == list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize(
    ("line", "status", "hint"),
    [
        ("rsync: [receiver] write failed: No space left on device (28)", 11, "free space there"),
        ("zsh:1: command not found: rsync", 127, "install rsync there: apt-get install rsync, or brew install rsync"),
        (
            "bash: line 1: exec: rsync: not found",
            127,
            "install rsync there: apt-get install rsync, or brew install rsync",
        ),
        (
            "Host key verification failed.",
            255,
            "find out why its key changed; if rightly, `ssh-keygen -R mac4`, then `ssh mac4`",
        ),
        (
            "Connection to 10.0.5.1 closed by remote host.",
            255,
            "check that it is on the network, then run the command again: it continues where it stopped",
        ),
    ],
)
def test_an_error_of_rsync_comes_with_a_hint(line: str, status: int, hint: str) -> None:
    """
    Its own message says what is wrong and seldom what to do.
    """
    done = subprocess.CompletedProcess([], status, b"", f"{line}\nrsync error: unexplained (code 1)".encode())

    assert hint == transfer._failure("mac4", done).hint


def test_every_hosts_problem_is_reported(here: Site) -> None:
    """
    Correcting one host at a time would cost an attempt per host.
    """
    recipe = here.recipe()
    shutil.rmtree(here.homes)

    fact = "ssh cannot reach it: ssh: connect to host {0} port 22: No route to host"
    assert [
        f"host {host}: {fact.format(host)}; make `ssh {host} true` work without a password" for host in ("mac4", "mac5")
    ] == refusal(sync.sync, recipe, here.home)


def test_every_file_that_is_not_made_yet_is_reported(here: Site) -> None:
    """
    Each missing file comes with the task that makes it.
    """
    recipe = here.recipe()
    (here.home / "data/rows/test.jsonl").unlink()
    (here.home / "runs/models/tiny/model.lock.json").unlink()

    assert [
        "data/rows/test.jsonl: is missing; run `./doit data:rows`",
        "runs/models/tiny/model.lock.json: is missing; run `./doit model:tiny`",
    ] == refusal(sync.sync, recipe, here.home)


def test_a_full_host_is_reported_before_anything_is_sent() -> None:
    """
    Hours into a transfer is too late.
    """
    state = {"elsewhere": [], "free_bytes": 5 * sync.MIB}

    assert ["host mac4: has 5 MiB free, and 7 MiB would be sent; free space there"] == [
        str(problem) for problem in sync._problems(state, "mac4", 7 * sync.MIB)
    ]
