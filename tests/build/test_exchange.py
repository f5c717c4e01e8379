"""Outputs of a run in a store: pushed once, pulled into another cache, and refused where anything is not as it was."""

from pathlib import Path

import pytest

from thunder_train import ThunderError
from thunder_train.build import exchange
from thunder_train.build.exchange import Moved
from thunder_train.build.key import Reads, Stage
from thunder_train.build.run_cache import RunCache
from thunder_train.build.store import FolderStore
from thunder_train.core import files

RUN = "0123456789ab"


def stage(name: str, *targets: str) -> Stage:
    """A stage of the recipe x that made these files of its run."""
    for target in targets:
        files.write_text(f"runs/x/{target}", f"content of {target}\n")
    paths = tuple(f"runs/x/{target}" for target in targets)
    return Stage(name, lambda _: None, paths, {}, Reads(recipe=name), ("core.files",), is_cached=True, folder="runs/x")


@pytest.fixture
def pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    """A store with a run of two stages."""
    monkeypatch.chdir(tmp_path)
    store = FolderStore(tmp_path / "store")
    stages = [stage("train:x", "adapter/weights", "metrics.jsonl"), stage("evaluate:x", "eval.json")]
    moved = exchange.push("x", RUN, stages, store)

    assert Moved("x", RUN, 3, moved.bytes) == moved
    assert Moved("x", RUN, 0, 0) == exchange.push("x", RUN, stages, store)
    return store


def stated() -> dict[str, str]:
    """What a manifest says of the outputs."""
    return {name: files.sha256(f"runs/x/{name}") for name in ("adapter/weights", "eval.json")}


def empty_cache(tmp_path: Path) -> RunCache:
    """The run cache of another clone."""
    return RunCache(tmp_path / "other/cache", 10**6)


def test_another_clone_restores_what_was_pushed(pushed: FolderStore, tmp_path: Path) -> None:
    """
    Under the same keys, so that its build finds them.
    """
    cache = empty_cache(tmp_path)

    assert 3 == exchange.pull("x", RUN, stated(), cache, pushed).files
    again = stage("evaluate:x", "eval.json")
    assert cache.restore(again.key(again.parts()), tmp_path / "out", ["eval.json"])
    assert "content of eval.json\n" == (tmp_path / "out/eval.json").read_text()
    assert 0 == exchange.pull("x", RUN, stated(), cache, pushed).files


def test_a_run_that_nobody_pushed_is_named(pushed: FolderStore, tmp_path: Path) -> None:
    """
    With the command for whoever has made it.
    """
    with pytest.raises(ThunderError) as error:
        exchange.pull("y", "ba9876543210", {}, empty_cache(tmp_path), pushed)

    assert ("y: run ba9876543210 is not in the store; whoever made it pushes it: `./doit push y`") == str(error.value)


def test_an_output_that_the_manifest_does_not_name_is_refused(pushed: FolderStore, tmp_path: Path) -> None:
    """
    Whoever may write to the store must not choose what others restore as this run.
    """
    outputs = {**stated(), "eval.json": "0" * 64}

    with pytest.raises(ThunderError, match=f"^eval.json: is not the file that the manifest of run {RUN} names; push"):
        exchange.pull("x", RUN, outputs, empty_cache(tmp_path), pushed)

    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("blobs", "other", "has other bytes than its name says"),
        ("blobs", "x" * 100, "has more than"),
        ("actions", "{}", "is not as it was written: no entry"),
        ("actions", "x" * (2 << 20), "has more than 1,048,576 bytes"),
        ("runs", "[]", "is no list of outputs"),
        (
            "runs",
            '{"schema": "thunder.pushed/9", "run_id": "0123456789ab", "keys": []}',
            "is of another run or version",
        ),
        ("runs", '{"schema": "thunder.pushed/1", "run_id": "\\u001b", "keys": []}', "is of another run or version"),
        ("runs", '{"schema": "thunder.pushed/1", "run_id": "0123456789ab", "keys": ["../x"]}', "is no list of outputs"),
    ],
)
def test_nothing_in_a_store_is_believed(
    pushed: FolderStore, tmp_path: Path, kind: str, text: str, message: str
) -> None:
    """
    Each file is bounded and compared with its hash, and an entry with its own digest.
    """
    for file in (pushed.folder / kind).rglob("*"):
        if file.is_file():
            file.write_text(text)

    with pytest.raises(ThunderError, match=message) as error:
        exchange.pull("x", RUN, stated(), empty_cache(tmp_path), pushed)

    assert str(error.value).isprintable()
    assert [] == [*(tmp_path / "other/cache").glob("blobs/*/*")]


def test_a_link_in_a_shared_folder_is_not_followed(pushed: FolderStore, tmp_path: Path) -> None:
    """
    It could lead to a file of this machine that belongs to nobody else.
    """
    run = pushed.folder / f"runs/{RUN}.json"
    run.rename(tmp_path / "secret")
    run.symlink_to(tmp_path / "secret")

    with pytest.raises(ThunderError, match="refuses: "):
        exchange.pull("x", RUN, stated(), empty_cache(tmp_path), pushed)
