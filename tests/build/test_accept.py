"""`doit accept`: which outputs may stand, what is remembered of that, and how it ends."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doit import Globals
from doit.dependency import JSONCodec

from thunder_train import ThunderError
from thunder_train.build import accept, environment, stage
from thunder_train.build.key import Reads, Stage
from thunder_train.build.run_cache import RunCache
from thunder_train.build.state import DurableState
from thunder_train.core import code_hash, files, revisions
from thunder_train.core.stat_cache import StatCache

OUTPUT, INPUT = Path("runs/smoke/adapter"), Path("data/rows/train.jsonl")


class Project:
    """A project of one training, whose code and environment are what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch, self.cache, self.runs = monkeypatch, RunCache(Path("cache"), 1 << 20), 0
        self.state = Globals.dep_manager.backend
        INPUT.parent.mkdir(parents=True)
        INPUT.write_text("rows")
        self.code("revision 1")
        self.facts(mlx="0.32.4")

    def code(self, version: str) -> None:
        """What the version of the training's code is from now on; a hash of edited code has no blank."""
        self._monkeypatch.setattr(revisions, "stated", lambda *_: version)
        self._monkeypatch.setattr(code_hash, "hashes", lambda *_: {"thunder_train/step.py": version})
        self._monkeypatch.setattr(code_hash, "hashes_now", code_hash.hashes)
        self._monkeypatch.setattr(code_hash, "at_first", code_hash.hashes)
        stage.decisive.cache_clear()
        stage._decisive_digest.cache_clear()

    def facts(self, **facts: str) -> None:
        """What the environment is from now on."""
        self._monkeypatch.setattr(environment, "whole", lambda: facts)
        self._monkeypatch.setattr(environment, "part", lambda names: {name: facts[name] for name in names})

    def stage(self, **reads: Any) -> Stage:
        """The training. reads: its slice of the recipe."""
        return Stage(
            name="train:smoke",
            make=self._make,
            targets=(str(OUTPUT),),
            inputs={str(INPUT): "rows"},
            reads=Reads(train=reads or {"rank": 8}),
            code=revisions.CODE["train"],
            is_cached=True,
            compared=("mlx",),
        )

    def train(self) -> bool:
        """Run the stage as doit does. Whether it ran, and was not restored."""
        before, task = self.runs, SimpleNamespace(values={}, meta={})
        assert stage.run(self.stage(), self.cache, task) is None
        self.state.set("train:smoke", "_values_:", task.values)
        self.state.set("train:smoke", str(INPUT), [4, files.sha256(INPUT)])
        self.state.set("train:smoke", "deps:", [str(INPUT)])
        return self.runs > before

    def accept(self, **reads: Any) -> list[str]:
        """What `doit accept train:smoke` says."""
        return accept.accept([self.stage(**reads)], self.state)

    def reasons(self) -> list[str]:
        """Why the stage would run."""
        return list(stage.reasons(self.stage(), self.state))

    def _make(self, out: Path) -> None:
        self.runs += 1
        files.write_text(out / OUTPUT, f"adapter {self.runs}")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project of one training, the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("thunder_train.build.key.STATS", StatCache(tmp_path / "stats.sqlite"))
    monkeypatch.setattr(stage, "STATS", StatCache(tmp_path / "stats.sqlite"))
    state = DurableState(".thunder/state.sqlite", JSONCodec())
    state.build({"train:smoke"})
    state.get("train:smoke", "")  # as doit first looks whether it is fresh
    monkeypatch.setattr(Globals, "dep_manager", SimpleNamespace(backend=state))
    yield Project(monkeypatch)
    state.dump()
    stage.decisive.cache_clear()
    stage._decisive_digest.cache_clear()


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ("revision 1", "edited", ["thunder_train/step.py: code changed"]),
        ("edited", "other", ["thunder_train/step.py: code changed"]),
        ("edited", "revision 2", ["code: edited -> revision 2"]),
        ("revision 2", "revision 3", ["code: revision 2 -> 3"]),
    ],
)
def test_a_changed_version_of_the_code_is_named(project: Project, then: str, now: str, expected: list[str]) -> None:
    """
    Edited code by its files, recorded code by its revision: which file changed the numbers nobody could see.
    """
    project.code(then)
    project.train()
    project.code(now)

    assert expected == project.reasons()


def test_an_upgrade_that_raises_no_revision_makes_nothing_stale(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The files differ, the revision does not; nor does the key under which the run cache keeps the outputs.
    """
    project.train()
    key = project.stage().key(project.stage().parts())
    monkeypatch.setattr(code_hash, "hashes", lambda *_: {"thunder_train/step.py": "rewritten"})
    monkeypatch.setattr(code_hash, "hashes_now", code_hash.hashes)
    stage.decisive.cache_clear()
    stage._decisive_digest.cache_clear()

    assert [] == project.reasons()
    assert key == project.stage().key(project.stage().parts())


def test_accepted_outputs_stand(project: Project) -> None:
    """
    Under another revision and another library at once; a file says so, with both sides of each change.
    """
    project.train()
    project.code("revision 2")
    project.facts(mlx="0.33.0")

    assert [
        "train:smoke: made by revision 1, accepted under revision 2",
        "train:smoke: made with mlx 0.32.4, accepted under mlx 0.33.0",
    ] == project.accept()
    assert [] == project.reasons()
    assert {
        "train": {
            "code": {"recorded": "revision 1", "accepted": "revision 2"},
            "environment": {"mlx": {"recorded": "0.32.4", "accepted": "0.33.0"}},
        }
    } == json.loads(Path("runs/smoke/accepted.json").read_text())
    assert ["train:smoke: is up to date"] == project.accept()


def test_outputs_accepted_twice_were_made_by_the_first_code(project: Project) -> None:
    """
    The record of the first acceptance is not what made them. Back under that code, nothing is accepted any more.
    """
    project.train()
    project.code("revision 2")
    project.accept()
    project.code("f" * 64)

    assert ["train:smoke: made by revision 1, accepted under code ffffffffffff"] == project.accept()
    project.code("revision 1")
    assert ["train:smoke: stands under the code and in the environment that made it"] == project.accept()
    assert not Path("runs/smoke/accepted.json").exists()


def test_a_real_run_ends_what_was_accepted(project: Project) -> None:
    """
    Its outputs are those of today's code.
    """
    project.train()
    project.code("revision 2")
    project.accept()

    OUTPUT.unlink()

    assert project.train()
    assert not Path("runs/smoke/accepted.json").exists()


def test_nothing_accepted_comes_from_the_run_cache(project: Project) -> None:
    """
    The cache holds what revision 1 made, under its own key alone: revision 2 runs, revision 1 is restored.
    """
    project.train()
    kept = sorted(Path("cache/actions").iterdir())
    project.code("revision 2")
    project.accept()
    assert kept == sorted(Path("cache/actions").iterdir())
    OUTPUT.unlink()
    assert project.train()

    project.code("revision 1")

    assert not project.train()
    assert "adapter 1" == OUTPUT.read_text()


def _edit_output(_: Project) -> None:
    OUTPUT.write_text("by hand")


def _edit_input(_: Project) -> None:
    INPUT.write_text("others")


@pytest.mark.parametrize(
    ("change", "reads", "reason"),
    [
        pytest.param(_edit_output, {}, "runs/smoke/adapter: edited since it was made", id="output"),
        pytest.param(lambda _: OUTPUT.unlink(), {}, "runs/smoke/adapter: is missing", id="no-output"),
        pytest.param(_edit_input, {}, "data/rows/train.jsonl: content changed", id="input"),
        pytest.param(lambda _: INPUT.unlink(), {}, "data/rows/train.jsonl: is missing", id="no-input"),
        pytest.param(lambda _: None, {"rank": 4}, "train.rank: 8 -> 4", id="recipe"),
    ],
)
def test_other_keys_inputs_and_outputs_are_never_accepted(
    project: Project, change: Any, reads: dict[str, Any], reason: str
) -> None:
    """
    That would be a lie about what the recipe gives; nothing is changed or written.
    """
    project.train()
    project.code("revision 2")
    change(project)

    with pytest.raises(ThunderError) as raised:
        project.accept(**reads)

    assert (
        f"train:smoke: its outputs are not those of this recipe and these inputs: {reason}; "
        "`./doit train:smoke` makes them"
    ) == str(raised.value)
    assert not Path("runs/smoke/accepted.json").exists()
    assert "code: revision 1 -> 2" in project.reasons()


def test_what_was_never_made_here_is_not_accepted(project: Project) -> None:
    """
    There is no record of what made files that came from elsewhere.
    """
    OUTPUT.parent.mkdir(parents=True)
    OUTPUT.write_text("from elsewhere")

    with pytest.raises(ThunderError) as raised:
        project.accept()

    assert "train:smoke: has no outputs on this machine to accept: never built; `./doit train:smoke` makes them" == str(
        raised.value
    )
