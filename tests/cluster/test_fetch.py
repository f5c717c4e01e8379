"""Fetching the first rank's outputs: complete and as done.json says, or nothing."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.fake_hosts import Site, refusal, site
from thunder_train.agent.client import Session
from thunder_train.cluster import fetch
from thunder_train.config.project import Recipe

RUN = ".thunder/staging/train-one-7/runs/one"
ADAPTER = b"weights"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site whose first host has finished a training."""
    made = site(tmp_path, monkeypatch)
    done = {"adapter": {"sha256": hashlib.sha256(ADAPTER).hexdigest(), "bytes": len(ADAPTER)}}
    content = {name: name.encode() for name in fetch.TRAINED}
    content |= {"adapter/adapters.safetensors": ADAPTER, "adapter/done.json": json.dumps(done).encode()}
    for name, data in content.items():
        path = made.there("mac4", f"{RUN}/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    made.there("mac5").mkdir(parents=True)
    return made


def refused(site: Site, recipe: Recipe) -> list[str]:
    """The lines of a refused fetch."""
    return refusal(fetch.outputs, recipe, site.home, RUN)


def test_the_first_ranks_files_come_home(here: Site) -> None:
    """
    The ranks wrote into a staging folder; the build finds there the files of a local training.
    """
    fetched = fetch.outputs(here.recipe(), here.home, RUN)

    assert tuple(sorted(f"{RUN}/{name}" for name in fetch.TRAINED)) == fetched
    assert {name: here.there("mac4", name).read_bytes() for name in fetched} == {
        name: (here.home / name).read_bytes() for name in fetched
    }
    assert not (here.home / ".thunder/arrived/one").exists()


def test_nothing_is_copied_from_this_machine_to_itself(here: Site) -> None:
    """
    Most often the first rank runs where the build does.
    """
    recipe = here.recipe()
    hosts = (replace(recipe.cluster.hosts[0], ssh="127.0.0.1"), recipe.cluster.hosts[1])

    assert () == fetch.outputs(replace(recipe, cluster=replace(recipe.cluster, hosts=hosts)), here.home, RUN)


def test_an_adapter_that_is_not_the_one_of_done_json_stays_out(here: Site) -> None:
    """
    done.json was written beside the very bytes it hashes; other bytes are another adapter.
    """
    here.there("mac4", f"{RUN}/adapter/adapters.safetensors").write_bytes(b"Weights")

    lines = refused(here, here.recipe())

    assert ["host mac4: the adapter is not the one in its done.json; train again"] == lines
    assert not (here.home / RUN).exists()


def test_a_file_that_is_not_there_is_named(here: Site) -> None:
    """
    A training that left no done.json has not ended, whatever else lies there.
    """
    here.there("mac4", f"{RUN}/adapter/done.json").unlink()

    assert [f"host mac4: {RUN}/adapter/done.json is missing; read the logs"] == refused(here, here.recipe())


def test_a_file_damaged_on_its_way_stays_out(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Every file is hashed on both sides, also those that are not in done.json. The next fetch starts with that file.
    """
    receive = Session.receive

    def damaged(session: Session, question: dict[str, Any], count: int) -> Iterator[bytes]:
        for part in receive(session, question, count):
            yield part.replace(b"metrics", b"Metrics")

    with monkeypatch.context() as patch:
        patch.setattr(Session, "receive", damaged)
        lines = refused(here, here.recipe())

    assert [f"host mac4: {RUN}/metrics.jsonl arrived damaged; run it again"] == lines
    assert not (here.home / RUN).exists()
    fetch.outputs(here.recipe(), here.home, RUN)
    assert b"metrics.jsonl" == (here.home / RUN / "metrics.jsonl").read_bytes()


def test_a_fetch_continues_where_it_was_cut_off(here: Site) -> None:
    """
    Bytes that arrived are not asked for again; here they are wrong, which shows that they were kept.
    """
    arrived = here.home / ".thunder/arrived/one" / hashlib.sha256(b"metrics.jsonl").hexdigest()
    arrived.parent.mkdir(parents=True)
    arrived.write_bytes(b"METRICS")

    assert [f"host mac4: {RUN}/metrics.jsonl arrived damaged; run it again"] == refused(here, here.recipe())
    arrived.write_bytes(b"metrics")
    fetch.outputs(here.recipe(), here.home, RUN)
    assert b"metrics.jsonl" == (here.home / RUN / "metrics.jsonl").read_bytes()


PATHS = ["../x", "/etc/passwd", ".ssh/authorized_keys", f"{RUN}/../x", f"{RUN}/launch.sh", "dodo.py"]


@pytest.mark.parametrize("path", PATHS)
def test_a_host_cannot_choose_where_its_files_lie_here(here: Site, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """
    A compromised host must not reach this machine.
    """
    monkeypatch.setattr(Session, "ask", lambda *_, **__: {"files": {path: [1, "0" * 64]}})

    assert f"host mac4: offers {path!r}, which was not asked for; check that host" == refused(here, here.recipe())[0]
    assert not (here.home / RUN).exists()


@pytest.mark.parametrize("name", [".hidden", "a b.safetensors", "launch.sh", "x.py", "..", "a/b.safetensors"])
def test_only_checkpoints_come_out_of_a_folder(here: Site, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """
    The host lists what the folder holds, and it is moved to the same place here.
    """
    folder = ".thunder/partial/abc"
    monkeypatch.setattr(Session, "ask", lambda *_, **__: {"files": {f"{folder}/{name}": [1, "0" * 64]}})

    (line,) = refusal(fetch.checkpoints, here.recipe(), here.home, folder)
    assert line.startswith(f"host mac4: offers {f'{folder}/{name}'!r}, which was not asked for")


def test_a_host_cannot_fill_this_disk(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The size of a file is the host's own word.
    """
    answer = {"files": {f"{RUN}/{name}": [1 << 50, "0" * 64] for name in fetch.TRAINED}}
    monkeypatch.setattr(Session, "ask", lambda *_, **__: answer)

    (line,) = refused(here, here.recipe())
    assert line.startswith(f"host mac4: offers {len(fetch.TRAINED) << 30} MiB, and here ")
    assert not (here.home / ".thunder/arrived").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"adapter": 3}',
        '{"adapter": {"sha256": "x", "bytes": 1}}',
        "[" * 100_000,
        '{"rows": {"train": "x"}}',
    ],
)
def test_a_done_json_that_is_none_stays_out(here: Site, text: str) -> None:
    """
    It comes from another machine, and the build reads numbers in it.
    """
    here.there("mac4", f"{RUN}/adapter/done.json").write_text(text)

    (line,) = refused(here, here.recipe())
    assert line.startswith(f"host mac4: {RUN}/adapter/done.json is not what a training writes: ")
    assert not (here.home / RUN).exists()


def test_links_and_programs_of_a_host_come_home_as_plain_files(here: Site) -> None:
    """
    Only bytes travel: no link, no owner, no mode.
    """
    there = here.there("mac4", f"{RUN}/metrics.jsonl")
    shutil.move(there, here.homes / "elsewhere")
    there.symlink_to(here.homes / "elsewhere")
    (here.homes / "elsewhere").chmod(0o4777)

    fetch.outputs(here.recipe(), here.home, RUN)

    fetched = here.home / RUN / "metrics.jsonl"
    assert (False, 0) == (fetched.is_symlink(), fetched.stat().st_mode & 0o7133)


def test_checkpoints_come_home_as_far_as_there_are_any(here: Site) -> None:
    """
    After a training that failed: not even the loss of all hosts then costs more than the last steps.
    """
    recipe, folder = here.recipe(), ".thunder/partial/abc"
    assert () == fetch.checkpoints(recipe, here.home, folder)
    here.there("mac4", folder).mkdir(parents=True)
    for name in ("0000004.safetensors", "0000008.safetensors", "0000009.safetensors.draft77"):
        here.there("mac4", f"{folder}/{name}").write_text(name)

    fetched = fetch.checkpoints(recipe, here.home, folder)

    assert (f"{folder}/0000004.safetensors", f"{folder}/0000008.safetensors") == fetched
    assert "0000008.safetensors" == (here.home / folder / "0000008.safetensors").read_text()


def test_only_folders_below_thunder_are_removed(here: Site) -> None:
    """
    The one command that removes folders on hosts removes nothing that a user made.
    """
    recipe = here.recipe()
    for host in ("mac4", "mac5"):
        for folder in (".thunder/partial/abc", "runs/one"):
            here.there(host, folder).mkdir(parents=True)

    fetch.remove_folders(recipe, here.home, [".thunder/partial/abc", "runs/one", ".thunder/../runs/one", "."])

    for host in ("mac4", "mac5"):
        assert [False, True] == [here.there(host, folder).exists() for folder in (".thunder/partial/abc", "runs/one")]


def test_nothing_is_removed_here(here: Site) -> None:
    """
    A cluster may name this machine and folder under an ssh name, and the new outputs are still in staging.
    """
    recipe = here.recipe()
    shutil.rmtree(here.there("mac5"))
    here.there("mac5").symlink_to(here.home)
    for folder in (here.home, here.there("mac4")):
        (folder / ".thunder/staging/mine").mkdir(parents=True)

    fetch.remove_folders(recipe, here.home, [".thunder/staging/mine"])

    assert [True, False] == [(folder / ".thunder/staging/mine").exists() for folder in (here.home, here.there("mac4"))]
    assert ["staging"] == [path.name for path in (here.home / ".thunder").iterdir()]


def test_a_host_that_has_gone_does_not_undo_a_training(here: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """
    The adapter is home; files left on a host only cause a warning.
    """
    shutil.rmtree(here.homes / "mac5")

    fetch.remove_folders(here.recipe(), here.home, [".thunder/partial/abc"])

    assert capsys.readouterr().err.startswith("warning: .thunder/partial/abc could not be removed: host mac5: ssh ")
