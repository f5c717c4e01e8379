"""The run cache restores exactly a stage's outputs, or nothing."""

import os
from pathlib import Path

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

    assert cache.knows("k")
    assert cache.restore("k", tmp_path / "out")
    assert ["one", "two"] == [(tmp_path / "out" / name).read_text() for name in "ab"]
    (tmp_path / "out" / "a").write_text("edited")
    assert cache.restore("k", tmp_path / "again")
    assert "one" == (tmp_path / "again/a").read_text()


def test_an_unknown_key_is_not_restored(tmp_path: Path) -> None:
    """
    The stage runs.
    """
    cache = RunCache(tmp_path / "cache", 10**6)

    assert not cache.knows("k")
    assert not cache.restore("k", tmp_path)


def test_a_damaged_blob_is_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Same size, other bytes: only the hash differs.
    """
    cache = RunCache(tmp_path / "cache", 10**6)
    store(cache, "k", tmp_path / "made", a="one")
    blobs(tmp_path / "cache")[0].write_text("two")
    assert cache.knows("k")

    assert not cache.restore("k", tmp_path / "out")
    assert "warning: the cached a is damaged; making it again\n" == capsys.readouterr().err
    assert not cache.knows("k")
    store(cache, "k", tmp_path / "made", a="one")
    assert cache.restore("k", tmp_path / "out")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": {"sha256": 1}}'])
def test_a_damaged_entry_is_a_miss(tmp_path: Path, text: str) -> None:
    """
    The folder may be shared, so its files are not trusted.
    """
    cache = RunCache(tmp_path / "cache", 10**6)
    files.write_text(tmp_path / "cache/actions/k.json", text)

    assert not cache.knows("k")
    assert not cache.restore("k", tmp_path / "out")


def test_an_entry_cannot_write_outside_its_root(tmp_path: Path) -> None:
    """
    Paths in an entry of a shared folder are untrusted text.
    """
    cache = RunCache(tmp_path / "cache", 10**6)
    store(cache, "k", tmp_path / "made", a="one")
    entry = files.read_json(tmp_path / "cache/actions/k.json")
    files.write_json(tmp_path / "cache/actions/k.json", {"../escaped": entry["a"]})

    assert not cache.restore("k", tmp_path / "out")
    assert not (tmp_path / "escaped").exists()


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    """
    A limit that is never exceeded, and a file that two actions share stays while one of them does.
    """
    cache = RunCache(tmp_path / "cache", 25)
    for number, key in enumerate(("old", "used", "new")):
        store(cache, key, tmp_path / "made", mine=f"{key:10}", shared="12345")
        os.utime(tmp_path / f"cache/actions/{key}.json", (number, number))
    assert cache.restore("old", tmp_path / "out")  # now it is the one used last

    cache.trim()

    assert [True, False, True] == [cache.knows(key) for key in ("old", "used", "new")]
    assert 25 == sum(path.stat().st_size for path in blobs(tmp_path / "cache"))


def test_a_limit_of_zero_keeps_nothing(tmp_path: Path) -> None:
    """
    `cache_limit_gb = 0` turns the cache off.
    """
    cache = RunCache(tmp_path / "cache", 0)
    store(cache, "k", tmp_path / "made", a="one")

    assert not cache.knows("k")
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

    assert RunCache(tmp_path / "cache", 10**6).restore("k", tmp_path / "two")


def test_a_run_with_a_restores_nothing_and_still_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    `doit -a` is how a person makes a training run again.
    """
    cache = RunCache(tmp_path / "cache", 10**6)
    monkeypatch.setattr(RunCache, "is_read", False)
    store(cache, "k", tmp_path / "made", a="one")

    assert (False, False) == (cache.knows("k"), cache.restore("k", tmp_path / "out"))
    monkeypatch.setattr(RunCache, "is_read", True)
    assert cache.restore("k", tmp_path / "out")
