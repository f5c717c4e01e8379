"""Datasets of a hub on this machine, through the real client: pinned commits, what is fetched, errors in a sentence."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.fake_hub import FakeHub, serving
from tests.helpers.inputs import source
from thunder_train import ThunderError
from thunder_train.config.dataset import Source
from thunder_train.data import hub_dataset
from thunder_train.data.sources import Place

OLD, NEW = "a" * 40, "b" * 40
ROW = b'{"prompt": "a", "completion": "b"}\n'
FILES = {"data/train.jsonl": ROW, "data/test.jsonl": ROW, "README.md": b"# Rows", "rows.py": b"raise SystemExit"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with the repository me/rows, and an empty cache."""
    import huggingface_hub.constants as constants

    with serving() as served:
        for name, value in (
            ("ENDPOINT", served.address),
            ("HUGGINGFACE_CO_URL_TEMPLATE", served.address + "/{repo_id}/resolve/{revision}/{filename}"),
            ("HF_HUB_CACHE", str(tmp_path / "hub")),
            ("HF_HUB_DISABLE_XET", True),
            ("HF_HUB_DISABLE_PROGRESS_BARS", True),
            ("HF_HUB_DISABLE_IMPLICIT_TOKEN", True),
        ):
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", served.address, raising=False)
        served.add("me/rows", OLD, FILES)
        yield served


def of_hub(**given: Any) -> Source:
    """A source in me/rows."""
    return source(**{"kind": "completions", "repo": "me/rows", "revision": "main", "path": "data/*.jsonl"} | given)


def places(project: Path, *sources: Source) -> list[Place]:
    """Where the sources of the dataset `mine` lie."""
    dataset: Any = SimpleNamespace(name="mine", sources=sources)
    return [*hub_dataset.places(dataset, project).values()]


def pin(project: Path, *placed: tuple[Source, Place]) -> None:
    """Write the manifest of a build."""
    entries = [place.declared(one) for one, place in placed]
    (project / "data/mine").mkdir(parents=True, exist_ok=True)
    (project / "data/mine/manifest.json").write_text(json.dumps({"sources": [{"path": "own.jsonl"}, *entries]}))


def held(place: Place) -> dict[str, bytes]:
    """The files in the folder of a place."""
    paths = [path for path in place.folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(place.folder)): path.read_bytes() for path in sorted(paths)}


def refusal(project: Path, *sources: Source) -> str:
    """Why the sources cannot be had."""
    with pytest.raises(ThunderError) as error:
        places(project, *sources)
    return str(error.value)


def test_only_the_rows_that_the_path_selects_are_fetched(hub: FakeHub, tmp_path: Path) -> None:
    """
    A repository may hold terabytes, and programs.
    """
    (place,) = places(tmp_path, of_hub(path="data/train.jsonl"))

    assert (OLD, {"data/train.jsonl": ROW}) == (place.commit, held(place))


def test_a_pinned_commit_stays_when_the_branch_moves(hub: FakeHub, tmp_path: Path) -> None:
    """
    Until the source names another revision.
    """
    pin(tmp_path, (of_hub(), places(tmp_path, of_hub())[0]))
    hub.add("me/rows", NEW, {"data/train.jsonl": ROW * 2})

    assert [OLD, OLD] == [place.commit for place in places(tmp_path, of_hub(), of_hub(path="data"))]
    assert [NEW] == [place.commit for place in places(tmp_path, of_hub(revision=NEW))]


def test_sources_of_one_revision_are_of_one_commit(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The branch may move while the files of the first are fetched.
    """
    fetch = hub_dataset._place

    def fetch_and_move(*arguments: Any) -> Place:
        place = fetch(*arguments)
        hub.add("me/rows", NEW, FILES)
        return place

    monkeypatch.setattr(hub_dataset, "_place", fetch_and_move)

    assert [OLD, OLD] == [place.commit for place in places(tmp_path, of_hub(), of_hub(path="data"))]


def test_what_the_cache_holds_needs_no_network(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With HF_HUB_OFFLINE, as `doit reproduce` sets it; and a pinned build asks the hub for nothing in any case.
    """
    (place,) = places(tmp_path, of_hub())
    pin(tmp_path, (of_hub(), place))
    hub.asked.clear()

    assert [place] == places(tmp_path, of_hub())
    assert [] == [path for path in hub.asked if "/datasets/" in path]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert [place] == places(tmp_path, of_hub())


def test_rows_that_the_cache_lacks_are_never_left_out(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The cache lists what the commit has, so that a wider path without network fails instead of reading fewer files.
    """
    places(tmp_path, of_hub(path="data/train.jsonl"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    answer = refusal(tmp_path, of_hub())

    where = "thunder.toml: datasets.mine.sources[0].repo"
    assert answer.startswith(
        f"{where}: me/rows at {OLD} is not whole in the local cache, and the hub cannot be reached ("
    )
    assert answer.endswith("; connect once without HF_HUB_OFFLINE and build again")
    assert "\n" not in answer


def test_files_that_another_program_cached_are_read_without_network(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Earlier clients, and the library `datasets`, keep no list of a commit's files.
    """
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    snapshot = tmp_path / "hub/datasets--me--rows/snapshots" / OLD / "data"
    snapshot.mkdir(parents=True)
    (snapshot / "train.jsonl").write_bytes(ROW)
    (snapshot.parents[2] / "refs").mkdir()
    (snapshot.parents[2] / "refs" / "main").write_text(OLD)

    (place,) = places(tmp_path, of_hub())

    assert (OLD, {"data/train.jsonl": ROW}) == (place.commit, held(place))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"repo": "me/none"},
            "repo: no dataset is named 'me/none'; check its owner and name; if it is private, set HF_TOKEN, as "
            "`hf auth login` does",
        ),
        ({"revision": "v9"}, "revision: me/rows has no revision 'v9'; look at the branches and tags on its page"),
        (
            {"revision": "c" * 40},
            f"revision: me/rows has no revision '{'c' * 40}'; look at the branches and tags on its page",
        ),
        (
            {"path": "en/*.parquet"},
            "path: no file of me/rows at main matches 'en/*.parquet'; it has data/train.jsonl, data/test.jsonl",
        ),
        (
            {"path": "*.py"},
            "path: selects rows.py of me/rows, which Thunder Train does not read as rows; "
            "narrow the pattern to files of rows",
        ),
        (
            {"references": "refs.jsonl"},
            "references: no file of me/rows at main matches 'refs.jsonl'; it has data/train.jsonl, data/test.jsonl",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    hub: FakeHub, tmp_path: Path, given: dict[str, str], expected: str
) -> None:
    """
    With the key to change and what there is instead.
    """
    assert f"thunder.toml: datasets.mine.sources[0].{expected}" == refusal(tmp_path, of_hub(**given))


def test_a_gated_dataset_says_how_to_get_in(hub: FakeHub, tmp_path: Path) -> None:
    """
    The hub answers 403 with a code of its own.
    """
    hub.gated.add("me/rows")

    hint = "accept its terms on its page and set HF_TOKEN, as `hf auth login` does (me/rows)"
    assert f"thunder.toml: datasets.mine.sources[0].repo: is gated; {hint}" == refusal(tmp_path, of_hub())


def test_a_dataset_that_a_program_makes_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    """
    Earlier versions of `datasets` ran such a program of a stranger; the hub has most of them as Parquet.
    """
    hub.add("me/script", OLD, {"script.py": b"import os", "README.md": b""})

    what = "me/script has no rows but a program that makes them (script.py), which Thunder Train never runs"
    hint = 'read what the hub made of it: revision = "refs/convert/parquet" and path = "CONFIG/train/*.parquet"'
    answer = refusal(tmp_path, of_hub(repo="me/script", path="train.jsonl"))
    assert f"thunder.toml: datasets.mine.sources[0].path: {what}; {hint}" == answer


def test_the_converted_branch_of_a_dataset_is_read(hub: FakeHub, tmp_path: Path) -> None:
    """
    Its name has slashes.
    """
    hub.add("me/script", OLD, {"default/train/0000.parquet": b"PAR1"}, branch="refs/convert/parquet")

    wanted = of_hub(repo="me/script", revision="refs/convert/parquet", path="default/train/*.parquet")
    (place,) = places(tmp_path, wanted)

    assert ["default/train/0000.parquet"] == [*held(place)]


def test_all_sources_that_fail_are_told_at_once(hub: FakeHub, tmp_path: Path) -> None:
    """
    A file of this machine between them is no concern of the hub.
    """
    answer = refusal(tmp_path, of_hub(repo="me/a"), source(repo=""), of_hub(repo="me/b"))

    assert ["sources[0]", "sources[2]"] == [line.split(".")[3] for line in answer.splitlines()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "is not JSON"),
        ("[]", "is not the manifest of a dataset"),
        (
            '{"sources": [{"repo": "me/rows", "revision": "main", "commit": "../x"}]}',
            "states a commit that is not 40 hex",
        ),
    ],
)
def test_a_broken_pin_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    """
    The commit becomes a part of a path.
    """
    path = tmp_path / "manifest.json"
    path.write_text(text)

    with pytest.raises(ThunderError, match=f"manifest.json: {expected}.*; delete it, or git checkout it"):
        hub_dataset.pinned(path)
