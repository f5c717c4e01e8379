"""Sync with faults: files that arrive damaged or in part change nothing, and every host's problem is reported."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.fake_hosts import WEIGHTS, Site, code, refusal, site
from thunder_train import ThunderError
from thunder_train.agent.client import Session
from thunder_train.cluster import sync, transfer

HOSTILE = "a b; $(touch pwned) 'x' \"y\""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site with a little code."""
    return code(site(tmp_path, monkeypatch))


def test_what_arrives_damaged_changes_nothing(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A host is in the old state or in the new one: half of each could train with wrong results.
    """
    recipe = here.recipe()
    sync.sync(recipe, here.home)
    here.write("thunder_train/a.py", "A = 2\n")
    here.write("data/rows/train.jsonl", "other\n")
    incoming = f".thunder/incoming/one/{sha('A = 2')}"
    push = transfer.push

    def damage(session: Session, *words: Any) -> None:
        push(session, *words)
        here.there(session.host, incoming).write_text("A = 3\n")

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "push", damage)
        lines = refusal(sync.sync, recipe, here.home)

    hint = "run it again; if that does not help, check that host's memory and disk"
    assert [
        f"host {host}: thunder_train/a.py arrived damaged; nothing was changed there; {hint}"
        for host in ("mac4", "mac5")
    ] == lines
    assert "A = 1\n" == here.there("mac4", "thunder_train/a.py").read_text()
    assert "train\n" == here.there("mac4", "data/rows/train.jsonl").read_text()
    sync.sync(recipe, here.home)
    assert "A = 2\n" == here.there("mac4", "thunder_train/a.py").read_text()


def sha(line: str) -> str:
    return hashlib.sha256(f"{line}\n".encode()).hexdigest()


def test_an_interrupted_transfer_is_invisible_and_continues(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Arrived bytes wait outside of everything that is read, and the next sync sends only the others.
    """
    recipe, weights = here.recipe(), WEIGHTS["model.safetensors"]
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "_pieces", _cut_off)
        lines = refusal(sync.sync, recipe, here.home)

    assert ["host mac4: the cable is out"] * 2 == lines
    assert {} == here.tree("mac4")
    part = here.there("mac4", f".thunder/incoming/one/{hashlib.sha256(weights).hexdigest()}")
    assert 9000 == part.stat().st_size
    sent = [host.sent_bytes for host in sync.sync(recipe, here.home).hosts]
    assert weights == here.tree("mac4")["runs/models/tiny/files/model.safetensors"]
    assert len(weights) - 9000 == sent[0]


def _cut_off(part: transfer.Part) -> Any:
    """As transfer._pieces, but a cable is pulled after 9000 bytes."""
    data = part.path.read_bytes()[part.offset :]
    yield data[:9000]
    if len(data) > 9000:
        raise ThunderError("the cable is out", "host mac4")


@pytest.mark.parametrize(
    "name", [HOSTILE, "p; touch pwned; cd p", "with a blank", "-rf", "$(touch pwned)", "a'b", 'a"b']
)
def test_hostile_names_stay_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Folders of a configuration and names of files reach other machines: nothing in them may run, or lie elsewhere.
    """
    here = site(tmp_path, monkeypatch, place=name)
    here.tool("rsync", APPLE)
    here.write(f"templates/{name}.j2", "x")
    recipe = here.recipe()

    synced = sync.sync(recipe, here.home)

    assert b"x" == here.tree("mac4")[f"templates/{name}.j2"]
    assert [10, 10] == [host.sent for host in synced.hosts]
    assert [name] == [path.name for path in (here.homes / "mac4").iterdir()]
    assert [] == list(tmp_path.rglob("pwned"))


APPLE = """#!/bin/bash
# As Apple's openrsync, which splits --rsync-path at blanks, without regard for quotes.
for word; do case "$word" in
  --rsync-path=*) program=${word#*=} ;;
  --rsh=*) shell=${word#*=} ;;
  *:*) host=${word%%:*}; folder=${word#*:} ;;
esac; done
exec $shell "$host" $program --server . "$folder"
"""


@pytest.mark.parametrize(
    ("answer", "asks"),
    [
        ({"missing": [".env"]}, ".env"),
        ({"missing": ["doit", ".git/config"]}, ".git/config"),
        ({"missing": ["../../.ssh/id_ed25519"]}, "../../.ssh/id_ed25519"),
        ({"missing": ["/etc/passwd"]}, "/etc/passwd"),
        ({"missing": ["thunder_train/../.env"]}, "thunder_train/../.env"),
        ({"missing": ["templates"]}, "templates"),
        ({"missing": ["doit\n"]}, "doit\ufffd"),
        ({"elsewhere": ["/etc/passwd"]}, "/etc/passwd"),
    ],
)
def test_a_host_gets_only_what_is_on_its_list(
    answer: dict[str, Any], asks: str, here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What it calls missing is its own word: tokens and keys of this machine must not follow from it.
    """
    here.write(".env", "HF_TOKEN=secret")
    recipe = here.recipe()
    looked = {
        "missing": [],
        "elsewhere": [],
        "removed": [],
        "environment": None,
        "python": None,
        "free_bytes": 1 << 40,
        "arrived": {},
    }
    fake = {**looked, **answer}
    monkeypatch.setattr(transfer, "push", None)
    monkeypatch.setattr(Session, "_answer_line", lambda _: json.dumps(fake).encode() + b"\n")

    lines = refusal(sync.sync, recipe, here.home)

    assert f"host mac4: asks for {asks!r}, which is not on the list of its files; check that host" == lines[0]


def test_a_host_that_claims_bytes_which_it_has_not_gets_the_whole_file(here: Site) -> None:
    """
    More bytes than the file has would be a negative count.
    """
    recipe = here.recipe()
    here.there("mac4", ".thunder/incoming/one").mkdir(parents=True)
    here.there("mac4", f".thunder/incoming/one/{sha('A = 1')}").write_bytes(bytes(999))

    sync.sync(recipe, here.home)

    assert "A = 1\n" == here.there("mac4", "thunder_train/a.py").read_text()


@pytest.mark.parametrize("name", ["templates/x.j2", "thunder_train/x.py", "recipes/x.toml", "data/rows/train.jsonl"])
@pytest.mark.parametrize("target", ["../id_rsa", ".env", "notes.txt"])
def test_no_link_is_followed_to_what_is_not_on_the_list(here: Site, name: str, target: str) -> None:
    """
    A stranger's project may hold links: to keys out of it, or to this clone's own secrets.
    """
    recipe = here.recipe()
    for path in ("../id_rsa", ".env", "notes.txt"):
        here.write(path, "secret")
    (here.home / name).unlink(missing_ok=True)
    (here.home / name).symlink_to(here.home / target)

    assert [f"{name}: is reached through a link, and no link is followed to a host; put the file there"] == refusal(
        sync.sync, recipe, here.home
    )
    assert {} == here.tree("mac4")


def test_no_folder_that_is_a_link_is_followed(here: Site) -> None:
    """
    `templates/more -> ~/.ssh` would send all of it.
    """
    recipe = here.recipe()
    here.write("../keys/id_rsa", "secret")
    (here.home / "templates/more").symlink_to(here.home / "../keys")
    here.write("data/rows2/x", "")
    shutil.move(here.home / "data/rows", here.home / "../rows")
    (here.home / "data/rows").symlink_to(here.home / "../rows")

    assert {"data/rows/train.jsonl", "data/rows/test.jsonl"} <= {
        line.partition(":")[0] for line in refusal(sync.sync, recipe, here.home)
    }
    assert {} == here.tree("mac4")


def test_a_link_to_another_file_of_the_list_is_a_copy(here: Site) -> None:
    """
    Such a link says nothing that is not sent anyway.
    """
    recipe = here.recipe()
    (here.home / "templates/same.j2").symlink_to("prompts/correct.j2")

    sync.sync(recipe, here.home)

    assert b"Correct it.\n" == here.tree("mac4")["templates/same.j2"]


def test_hidden_files_stay_at_home(here: Site) -> None:
    """
    `templates/.env` is no template.
    """
    recipe = here.recipe()
    for name in ("templates/.env", "templates/.git/config", "recipes/.old.toml"):
        here.write(name, "secret")

    sync.sync(recipe, here.home)

    assert not [name for name in here.tree("mac4") if "/." in name]


def test_a_model_folder_of_links_into_blobs_is_sent(here: Site) -> None:
    """
    Each file of a snapshot in Hugging Face's cache is such a link; thunder.toml may name a link to the snapshot.
    """
    recipe = here.recipe(model='kind = "path"\npath = "base"')
    snapshot = here.home.parent / "hub/models--a--b/snapshots/1"
    (snapshot.parent.parent / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in WEIGHTS:
        shutil.move(here.home / "base" / name, snapshot.parent.parent / "blobs" / name)
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    (here.home / "base").rmdir()
    (here.home / "base").symlink_to(snapshot)

    sync.sync(recipe, here.home)

    assert WEIGHTS["model.safetensors"] == here.tree("mac4")["base/model.safetensors"]


def test_a_model_file_that_is_a_link_elsewhere_is_not_sent(here: Site) -> None:
    """
    A model folder from a stranger may hold `extra.json -> ~/.ssh/id_rsa`, and its lock lists what the folder holds.
    """
    recipe = here.recipe(model='kind = "path"\npath = "base"')
    shutil.move(here.home / "base/config.json", here.home / "../config.json")
    (here.home / "base/config.json").symlink_to(here.home / "../config.json")

    what = "is a link out of the model's folder; put the file itself there"
    assert [f"{here.home}/base/config.json: {what}"] == refusal(sync.sync, recipe, here.home)


def test_a_full_disk_in_the_middle_is_the_hosts_own_message(here: Site) -> None:
    """
    Here a folder in the place of the file, which no host can write either.
    """
    recipe = here.recipe()
    here.there("mac4", f".thunder/incoming/one/{sha('A = 1')}").mkdir(parents=True)

    (line,) = refusal(sync.sync, recipe, here.home)

    assert line.startswith("host mac4: .thunder/incoming/one/")
    assert line.endswith("Is a directory; check the disk space and permissions there")
    assert "A = 1\n" == here.there("mac5", "thunder_train/a.py").read_text()


def test_every_hosts_problem_is_reported(here: Site) -> None:
    """
    Correcting one host at a time would cost an attempt per host.
    """
    recipe = here.recipe()
    shutil.rmtree(here.homes)

    fact = "ssh cannot reach it: ssh: connect to host {0} port 22: No route to host"
    hint = "check that it is on, on this network, and lets you in: `ssh {0} true`; on a Mac turn on Remote Login"
    assert [f"host {host}: {fact.format(host)}; {hint.format(host)}" for host in ("mac4", "mac5")] == refusal(
        sync.sync, recipe, here.home
    )


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


@pytest.mark.parametrize(
    ("doit", "expected"),
    [
        ("echo one; printf 'two\\033[2J\\n'; exit 3", "one | two\ufffd[2J"),
        ("exit 3", "exit status 3"),
        ("head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end; exit 3", "end"),
    ],
)
def test_an_environment_that_cannot_be_made_is_told(here: Site, doit: str, expected: str) -> None:
    """
    With the last lines of ./doit there.
    """
    here.write("requirements.lock", "mlx==1\n")
    here.write("doit", f"#!/bin/sh\n{doit}\n").chmod(0o755)

    lines = refusal(sync.sync, here.recipe(), here.home)

    assert ["host mac4: ", "host mac5: "] == [line[:11] for line in lines]
    assert all(expected in line and "\033" not in line and len(line) < 10_000 for line in lines)
