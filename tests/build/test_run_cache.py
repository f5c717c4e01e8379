"""The run cache restores exactly a stage's outputs, or nothing."""

import errno
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thunder_train.build.run_cache import RunCache
from thunder_train.core import files


def store(cache: RunCache, key: str, root: Path, **contents: str) -> None:
    """Store small files under a key."""
    for name, text in contents.items():
        files.write_text(root / name, text)
    cache.store(key, root, {name: files.sha256(root / name) for name in contents})


def blobs(folder: Path) -> list[Path]:
    """Every file of the cache."""
    return sorted(path for path in (folder / "blobs").rglob("*") if path.is_file())


def test_what_was_stored_comes_back(tmp_path: Path) -> None:
    """
    Bytes, names and nothing else; an edit of the restored file does not change the cache.
    """
    cache = RunCache(tmp_path / "cache", 10**6)
    store(cache, "k", tmp_path / "made", a="one", b="two")

    assert cache.knows("k", "ab")
    assert cache.restore("k", tmp_path / "out", "ab")
    assert ["one", "two"] == [(tmp_path / "out" / name).read_text() for name in "ab"]
    (tmp_path / "out" / "a").write_text("edited")
    assert cache.restore("k", tmp_path / "again", "ab")
    assert "one" == (tmp_path / "again/a").read_text()


def test_an_unknown_key_is_not_restored(tmp_path: Path) -> None:
    """
    The stage runs.
    """
    cache = RunCache(tmp_path / "cache", 10**6)

    assert not cache.knows("k", "a")
    assert not cache.restore("k", tmp_path, "a")


def test_a_damaged_blob_is_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Same size, other bytes: only the hash differs.
    """
    cache = RunCache(tmp_path / "cache", 10**6)
    store(cache, "k", tmp_path / "made", a="one")
    blobs(tmp_path / "cache")[0].write_text("two")
    assert cache.knows("k", "a")

    assert not cache.restore("k", tmp_path / "out", "a")
    assert "warning: the cached a is damaged; making it again\n" == capsys.readouterr().err
    assert not cache.knows("k", "a")
    store(cache, "k", tmp_path / "made", a="one")
    assert cache.restore("k", tmp_path / "out", "a")


def altered(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """An entry with other members, and the digest that belongs to them."""

    def alter(entry: dict[str, Any]) -> dict[str, Any]:
        rest = {name: value for name, value in {**entry, **changes}.items() if name != "digest"}
        return {**rest, "digest": files.digest(rest)}

    return alter


SHA = "0" * 64
ENTRIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda _: [],
    "of the first version": lambda entry: entry["outputs"],
    "no digest": lambda entry: {name: value for name, value in entry.items() if name != "digest"},
    "another digest": lambda entry: {**entry, "digest": SHA},
    "another key": altered(key="j"),
    "another schema": altered(schema="thunder.action/9"),
    "one member more": altered(more=1),
    "no file": altered(outputs={}),
    "one file more": lambda entry: altered(outputs={**entry["outputs"], "b": entry["outputs"]["a"]})(entry),
    "another name": lambda entry: altered(outputs={"launch.sh": entry["outputs"]["a"]})(entry),
    "a path above": lambda entry: altered(outputs={"../a": entry["outputs"]["a"]})(entry),
    "an absolute path": lambda entry: altered(outputs={"/a": entry["outputs"]["a"]})(entry),
    "a sha256 that is a path": altered(outputs={"a": {"sha256": "../" * 21 + "a", "bytes": 3}}),
    "a size below zero": altered(outputs={"a": {"sha256": SHA, "bytes": -1}}),
    "a size that is a text": altered(outputs={"a": {"sha256": SHA, "bytes": "3"}}),
    "a size above the limit": altered(outputs={"a": {"sha256": SHA, "bytes": 10**7}}),
    "too many files": altered(outputs={f"{n}": {"sha256": SHA, "bytes": 0} for n in range(1001)}),
    "deep": lambda _: json.loads("[" * 900 + "]" * 900),
    "huge": altered(outputs={"a" * (2 << 20): {"sha256": SHA, "bytes": 0}}),
}
"""What a person who may write to a shared cache, or a bad disk, can make of an entry."""


@pytest.mark.parametrize("kind", [*ENTRIES, "", "{", "{}", "\xff", "a pipe", "a folder", "a link"])
def test_an_entry_that_does_not_match_is_set_aside(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    With one line; the stage runs and is stored again, where one altered path once stopped it for ever.
    """
    cache = RunCache(tmp_path / "cache", 10**6)
    store(cache, "k", tmp_path / "made", a="one")
    place = tmp_path / "cache/actions/k.json"
    entry = files.read_json(place)
    good = place.rename(tmp_path / "good")
    if kind == "a pipe":
        os.mkfifo(place)
    elif kind == "a folder":
        (place / "inside").mkdir(parents=True)
    elif kind == "a link":
        place.symlink_to(good)
    else:
        place.write_text(json.dumps(ENTRIES[kind](entry)) if kind in ENTRIES else kind, encoding="latin-1")

    assert not cache.knows("k", "a")
    assert not cache.restore("k", tmp_path / "out", "a")
    assert not (tmp_path / "out").exists()
    assert 1 == capsys.readouterr().err.count("\n")
    store(cache, "k", tmp_path / "made", a="one")
    assert cache.restore("k", tmp_path / "out", "a")
    assert "" == capsys.readouterr().err


@pytest.mark.parametrize(
    "kind", ["missing", "short", "long", "a pipe", "a folder", "a link", "a link to a file of this size"]
)
def test_a_blob_that_is_not_what_was_stored_is_dropped(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    No link is followed and no pipe waited for.
    """
    cache = RunCache(tmp_path / "cache", 10**6)
    store(cache, "k", tmp_path / "made", a="one")
    blob = blobs(tmp_path / "cache")[0]
    blob.unlink()
    (tmp_path / "two").write_text("two")
    {
        "missing": lambda: None,
        "short": lambda: blob.write_text("on"),
        "long": lambda: blob.write_text("one and more"),
        "a pipe": lambda: os.mkfifo(blob),
        "a folder": lambda: (blob / "inside").mkdir(parents=True),
        "a link": lambda: blob.symlink_to("/etc/passwd"),
        "a link to a file of this size": lambda: blob.symlink_to(tmp_path / "two"),
    }[kind]()

    assert not cache.knows("k", "a")
    assert not cache.restore("k", tmp_path / "out", "a")
    assert "warning: the cached a is damaged; making it again\n" == capsys.readouterr().err
    store(cache, "k", tmp_path / "made", a="one")
    assert cache.restore("k", tmp_path / "out", "a")
    assert "two" == (tmp_path / "two").read_text()


@pytest.mark.parametrize("place", ["cache", "cache/actions", "cache/blobs", "every blob"])
def test_a_folder_of_somebody_else_costs_one_line(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Two people with a strict umask: neither reads nor writes what is the other's, and both go on building.
    """
    cache = RunCache(tmp_path / "cache", 10**6)
    store(cache, "k", tmp_path / "made", a="one")
    refused = tmp_path / "cache/blobs" if place == "every blob" else tmp_path / place

    def guarded(name: Any, *rest: Any, real: Any, **options: Any) -> Any:
        if Path(name).is_relative_to(refused):
            raise PermissionError(errno.EACCES, "Permission denied", str(name))
        return real(name, *rest, **options)

    for function in ("open", "replace", "unlink", "utime", "mkdir"):
        monkeypatch.setattr(os, function, functools.partial(guarded, real=getattr(os, function)))

    for key in ("k", "j"):
        assert not cache.restore(key, tmp_path / "out", "a")
        cache.store(key, tmp_path / "made", {"a": files.sha256(tmp_path / "made/a")})
    cache.trim()

    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 2
    assert "Permission denied" in "".join(lines) or "is damaged" in lines[0]


def test_what_another_person_planted_is_not_written_through(tmp_path: Path) -> None:
    """
    A link under the name of the file that is about to be written.
    """
    mine = tmp_path / "mine"
    mine.write_text("mine")
    cache = RunCache(tmp_path / "cache", 10**6)
    store(cache, "k", tmp_path / "made", a="one")
    blob = blobs(tmp_path / "cache")[0]
    blob.unlink()
    blob.with_name(f"{blob.name}{files.DRAFT}{os.getpid()}").symlink_to(mine)
    (tmp_path / f"cache/actions/k.json{files.DRAFT}{os.getpid()}").symlink_to(mine)

    store(cache, "k", tmp_path / "made", a="one")

    assert "mine" == mine.read_text()
    assert cache.restore("k", tmp_path / "out", "a")


@pytest.mark.parametrize("name", ["blobs", "actions"])
def test_a_folder_of_the_cache_that_leads_elsewhere_loses_nothing_there(tmp_path: Path, name: str) -> None:
    """
    Who may write to a shared cache could give a link for a folder: what is old there is not the cache's remains.
    """
    cache = RunCache(tmp_path / "cache", 10**6)
    store(cache, "k", tmp_path / "made", a="one")
    (tmp_path / "cache" / name).rename(tmp_path / "home")
    mine = tmp_path / "home/letters/one" if name == "blobs" else tmp_path / "home/letter"
    files.write_text(mine, "mine")
    os.utime(mine, (0, 0))
    (tmp_path / "cache" / name).symlink_to(tmp_path / "home")

    store(cache, "other", tmp_path / "made", a="one")
    cache.trim()

    assert [] == cache.remains()
    assert not cache.restore("k", tmp_path / "out", "a")
    assert "mine" == mine.read_text()
    assert not (tmp_path / "home/other.json").exists()


def test_a_folder_of_blobs_that_is_a_link_keeps_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    It could lead into a folder of the person who builds.
    """
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/blobs").symlink_to(tmp_path / "elsewhere")

    store(RunCache(tmp_path / "cache", 10**6), "k", tmp_path / "made", a="one")

    assert [] == [path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()]
    assert "is a link" in capsys.readouterr().err


def test_what_no_entry_names_goes_after_a_day(tmp_path: Path) -> None:
    """
    Blobs without an entry, drafts of killed builds and what was set aside; another build may just be writing a new one.
    """
    cache = RunCache(tmp_path / "cache", 10**6)
    store(cache, "k", tmp_path / "made", a="one")
    for name in ("blobs/00/old", "blobs/00/new", "actions/x.damaged"):
        files.write_text(tmp_path / "cache" / name, "")
    for name in ("blobs/00/old", "actions/x.damaged"):
        os.utime(tmp_path / "cache" / name, (1, 1))

    cache.trim()

    assert ["new"] == [path.name for path in (tmp_path / "cache/blobs/00").iterdir()]
    assert ["k.json"] == [path.name for path in (tmp_path / "cache/actions").iterdir()]
    assert cache.restore("k", tmp_path / "out", "a")


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    """
    A limit that is never exceeded, and a file that two actions share stays while one of them does.
    """
    cache = RunCache(tmp_path / "cache", 25)
    for number, key in enumerate(("old", "used", "new")):
        store(cache, key, tmp_path / "made", mine=f"{key:10}", shared="12345")
        os.utime(tmp_path / f"cache/actions/{key}.json", (number, number))
    assert cache.restore("old", tmp_path / "out", ("mine", "shared"))  # now it is the one used last

    cache.trim()

    assert [True, False, True] == [cache.knows(key, ("mine", "shared")) for key in ("old", "used", "new")]
    assert 25 == sum(path.stat().st_size for path in blobs(tmp_path / "cache"))


def test_a_limit_of_zero_keeps_nothing(tmp_path: Path) -> None:
    """
    `cache_limit_gb = 0` turns the cache off.
    """
    cache = RunCache(tmp_path / "cache", 0)
    store(cache, "k", tmp_path / "made", a="one")

    assert not cache.knows("k", "a")
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_warns_and_lets_the_build_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A cache must never break what works without it.
    """
    (tmp_path / "cache").write_text("a file where the folder should be")

    store(RunCache(tmp_path / "cache", 10**6), "k", tmp_path / "made", a="one")

    assert "warning: the run cache keeps nothing of this stage: " in capsys.readouterr().err


def test_two_clones_share_a_folder(tmp_path: Path) -> None:
    """
    The second clone restores the first one's outputs.
    """
    store(RunCache(tmp_path / "cache", 10**6), "k", tmp_path / "one", a="text")

    assert RunCache(tmp_path / "cache", 10**6).restore("k", tmp_path / "two", "a")


def test_a_run_with_a_restores_nothing_and_still_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    `doit -a` is how a person makes a training run again.
    """
    cache = RunCache(tmp_path / "cache", 10**6)
    monkeypatch.setattr(RunCache, "is_read", False)
    store(cache, "k", tmp_path / "made", a="one")

    assert (False, False) == (cache.knows("k", "a"), cache.restore("k", tmp_path / "out", "a"))
    monkeypatch.setattr(RunCache, "is_read", True)
    assert cache.restore("k", tmp_path / "out", "a")
