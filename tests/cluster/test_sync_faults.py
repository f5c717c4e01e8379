"""Sync when something is wrong: what arrives damaged or in part changes nothing, and every host's problem is told."""

import shutil
import subprocess
import time
from dataclasses import replace
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
    A host is in the old state or in the new one: half of each could train, and wrongly.
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

    hint = "run it again; if that does not help, look at its memory and disk"
    assert [
        f"host {host}: thunder_train/a.py arrived damaged; nothing was changed there; {hint}"
        for host in ("mac4", "mac5")
    ] == lines
    assert "A = 1\n" == here.there("mac4", "thunder_train/a.py").read_text()
    assert "train\n" == here.there("mac4", "data/rows/train.jsonl").read_text()


def test_a_transfer_that_breaks_off_is_invisible_and_goes_on(here: Site) -> None:
    """
    What has arrived waits apart from all that is read, and is used by the next sync.
    """
    recipe = here.recipe()
    part = "mkdir -p runs/models/tiny/files; head -c 9000 /dev/urandom >runs/models/tiny/files/model.safetensors"
    here.tool("rsync", f'#!/bin/sh\n[ "$1" = --server ] || exec {real("rsync")} "$@"\n{part}\nexit 12\n')

    lines = refusal(sync.sync, recipe, here.home)

    assert ["host mac4", "host mac5"] == [line.partition(":")[0] for line in lines]
    assert lines[0].endswith("; run it again: it goes on where it stopped")
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

    found = sync.sync(recipe, here.home)

    assert b"x" == here.tree("mac4")[f"templates/{HOSTILE}.j2"]
    assert [10, 10] == [host.sent for host in found.hosts]
    assert [] == list(tmp_path.rglob("pwned"))


def test_a_host_that_is_no_name_is_refused(here: Site) -> None:
    """
    rsync would hand "-oProxyCommand=..." to ssh as a flag, and read "a/b" as a path.
    """
    recipe = here.recipe()
    hosts = tuple(replace(host, ssh=name) for host, name in zip(recipe.cluster.hosts, ("-oX=y", "a/b"), strict=True))

    lines = refusal(sync.sync, replace(recipe, cluster=replace(recipe.cluster, hosts=hosts)), here.home)

    hint = "use the name of the host in ~/.ssh/config, or user@host"
    assert [f"hostfile: {name!r} is no name of a host; {hint}" for name in ("-oX=y", "a/b")] == lines


@pytest.mark.parametrize(
    ("said", "status", "mend"),
    [
        ("rsync: [receiver] write failed: No space left on device (28)", 11, "free space there"),
        ("sh: 1: exec: python3: not found", 127, "install Python 3.11 there"),
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
            "see that it is on the network, and run it again: it goes on where it stopped",
        ),
    ],
)
def test_what_a_program_says_there_comes_with_its_hint(said: str, status: int, hint: str) -> None:
    """
    Programs far away say what is wrong and seldom what to do.
    """
    done = subprocess.CompletedProcess([], status, b"", f"{said}\nrsync error: unexplained (code 1)".encode())

    assert hint == transfer._failure("mac4", done).hint


def test_every_hosts_problem_is_told(here: Site) -> None:
    """
    Mending one host at a time would cost a try per host.
    """
    recipe = here.recipe()
    shutil.rmtree(here.homes)

    fact = "ssh cannot reach it: ssh: connect to host {0} port 22: No route to host"
    assert [
        f"host {host}: {fact.format(host)}; make `ssh {host} true` work without a password" for host in ("mac4", "mac5")
    ] == refusal(sync.sync, recipe, here.home)


def test_what_is_not_made_yet_is_told_at_once(here: Site) -> None:
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


def test_a_full_host_is_told_before_anything_is_sent() -> None:
    """
    Hours into a transfer is too late.
    """
    found = {"elsewhere": [], "free_bytes": 5 * sync.MIB}

    assert ["host mac4: has 5 MiB free, and 7 MiB are to come; free space there"] == [
        str(problem) for problem in sync._problems(found, "mac4", 7 * sync.MIB)
    ]


def test_an_interruption_ends_what_runs_for_the_hosts(here: Site) -> None:
    """
    Ctrl-C in the middle of gigabytes must not wait for them, nor leave an rsync behind.
    """
    here.tool("ssh", f"#!/bin/sh\necho $$ >{here.tools}/new; mv {here.tools}/new {here.tools}/pid\nexec sleep 60\n")
    recipe = here.recipe()

    def act(host: str) -> object:
        if host == "mac4":
            return transfer.ask(recipe.cluster, host, {"do": "tell", "paths": []})
        while not (here.tools / "pid").exists():
            time.sleep(0.02)
        raise KeyboardInterrupt

    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        transfer.everywhere(["mac5", "mac4"], act)

    assert 10 > time.perf_counter() - began
    pid = int((here.tools / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()
