"""A stage as a task: what is kept when something changes while it runs, and what its record compares."""

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doit import Globals
from doit.dependency import JSONCodec

from thunder_train import ThunderError
from thunder_train.build import environment, key, stage
from thunder_train.build.key import Reads, Stage, View
from thunder_train.build.run_cache import RunCache
from thunder_train.build.state import DurableState
from thunder_train.core import code_hash, files

Made = Callable[[Path], None]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DurableState]:
    """The state of an empty project, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").write_text("one")
    backend = DurableState(".thunder/state.sqlite", JSONCodec())
    monkeypatch.setattr(Globals, "dep_manager", SimpleNamespace(backend=backend))
    yield backend
    backend.dump()


def training(recipe: str = "a", make: Made | None = None, **changed: Any) -> Stage:
    """A stage of a recipe that copies its rows."""

    def copy_rows(out: Path) -> None:
        (out / f"runs/{recipe}/adapter").write_text(Path("rows").read_text())

    made = Stage(
        f"train:{recipe}",
        make or copy_rows,
        (f"runs/{recipe}/adapter",),
        {"rows": "train"},
        Reads(train={"rate": 1}),
        ("core.files",),
        is_cached=True,
        folder=f"runs/{recipe}",
    )
    return replace(made, **changed)


def run(one: Stage, cache: RunCache | None = None) -> tuple[str, Any]:
    """Run a stage as doit does; why it failed, and the task."""
    task = SimpleNamespace(values={}, meta={})
    failed = stage.run(one, cache or RunCache(Path("cache"), 1 << 30), task)
    if not failed:
        backend = Globals.dep_manager.backend
        backend.set(one.name, "_values_:", task.values)
        for path in one.inputs:
            backend.set(one.name, path, [0, key.sha256(path)])
        backend.set(one.name, "deps:", list(one.inputs))
    return (failed.message if failed else ""), task


def test_another_recipe_takes_its_result_from_the_cache(state: DurableState) -> None:
    """
    Nothing that a key or an entry holds is a path with the recipe's name in it.
    """

    def never(out: Path) -> None:
        raise ThunderError("trains again")

    run(training("a"))

    assert "" == run(training("b", never))[0]
    assert "one" == Path("runs/b/adapter").read_text()


def test_an_input_that_changed_while_it_ran_is_named_and_nothing_is_thrown_away(state: DurableState) -> None:
    """
    The result is of nobody knows which rows; what the stage keeps for later is not removed, and the old target stays.
    """
    tidied: list[str] = []
    run(training())

    def swap(out: Path) -> None:
        (out / "runs/a/adapter").write_text("two")
        Path("rows").write_text("two")

    long = training(make=swap, reads=Reads(train={"rate": 2}), after=lambda: tidied.append("gone"))
    why, task = run(long)
    stage._tidy(long, task)

    kept = "run doit again; what it computed is kept for when they are as before"
    assert f"train:a: while it ran, rows: content changed; {kept}" == why
    assert ("one", []) == (Path("runs/a/adapter").read_text(), tidied)


def test_an_input_that_changed_and_changed_back_is_what_it_was(state: DurableState) -> None:
    """
    As with `git checkout` of another branch and back: contents count, not times.
    """

    def there_and_back(out: Path) -> None:
        (out / "runs/a/adapter").write_text(Path("rows").read_text())
        for text in ("two", "one"):
            Path("rows").write_text(text)

    assert "" == run(training(make=there_and_back))[0]


def test_a_failure_after_the_work_loses_nothing(state: DurableState, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A disk that is full when the files get their names, with a run cache that keeps nothing.
    """
    tidied: list[str] = []
    long = training(after=lambda: tidied.append("gone"))

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    with monkeypatch.context() as patched:
        patched.setattr(files, "move", full)
        why, task = run(long, RunCache(Path("cache"), 0))
    stage._tidy(long, task)

    assert "runs/a/adapter: No space left on device; free space, or make it writable, and run doit again" == why
    assert ([], "") == (tidied, run(long)[0])


def test_what_would_save_a_result_goes_once_the_result_is_recorded(state: DurableState) -> None:
    """
    Not when its files have their names, for a kill before the record would need it; and not for a restored result.
    """
    tidied: list[str] = []
    long = training(after=lambda: tidied.append("gone"))
    _, task = run(long)
    recorded = state.get(long.name, "_values_:")
    state.remove(long.name)
    stage._tidy(long, task)
    assert [] == tidied

    state.set(long.name, "_values_:", recorded)
    state.set(long.name, "deps:", ["rows"])
    for _ in range(2):
        stage._tidy(long, task)
    assert ["gone"] == tidied

    _, restored = run(training("b", after=lambda: tidied.append("b")))
    stage._tidy(training("b", after=lambda: tidied.append("b")), restored)
    assert ["gone"] == tidied


def test_code_that_changed_while_it_ran_is_not_what_is_recorded(
    state: DurableState, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    The result is of the code before: it stands, is stale, and enters no cache under either code.
    """
    now = {"thunder_train/core/files.py": "before"}
    monkeypatch.setattr(code_hash, "hashes_now", lambda starts, stats: dict(now))
    monkeypatch.setattr(code_hash, "at_first", lambda stats: {"thunder_train/core/files.py": "before"})

    def edit(out: Path) -> None:
        (out / "runs/a/adapter").write_text("one")
        now["thunder_train/core/files.py"] = "after"

    cache, edited = RunCache(Path("cache"), 1 << 30), training(make=edit)
    why, task = run(edited, cache)

    assert "" == why
    text = "warning: train:a: while it ran, thunder_train/core/files.py: code changed: the result is of the code before"
    assert text in capsys.readouterr().err
    assert {"thunder_train/core/files.py": "before"} == state.kept(task.values["code"])
    for hashes in ("before", "after"):
        now["thunder_train/core/files.py"] = hashes
        assert not stage.is_restorable(edited, cache)


def test_code_that_this_process_has_in_memory_and_the_disk_no_longer_is_refused(
    state: DurableState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An edit before the stage begins: this process would run the code before, its ranks the code after.
    """
    monkeypatch.setattr(code_hash, "at_first", lambda stats: {"thunder_train/core/files.py": "as it was loaded"})

    why, _ = run(training())

    end = " changed since this build began, which has the code before in its memory; run doit again"
    assert ("train:a: thunder_train/", True) == (why[:23], why.endswith(end))


@pytest.mark.parametrize(
    ("compared", "then", "now", "expected"),
    [
        ((), "1", "2", []),
        (("mlx",), "1", "1", []),
        (("mlx",), "1", "2", ["environment.mlx: '1' -> '2'"]),
        (None, "1", "2", []),
    ],
)
def test_the_whole_environment_is_recorded_and_the_chosen_part_compared(
    state: DurableState,
    monkeypatch: pytest.MonkeyPatch,
    compared: tuple[str, ...] | None,
    then: str,
    now: str,
    expected: list[str],
) -> None:
    """
    Another [build] environment makes nothing stale by itself, and compares what was recorded under the one before.
    """
    facts = {"mlx": then, "blas": "b"}
    monkeypatch.setattr(environment, "whole", lambda: dict(facts))
    monkeypatch.setattr(environment, "part", lambda names: {name: facts[name] for name in names})
    run(training(compared=("blas",)))
    facts["mlx"] = now

    one = training(compared=compared)

    assert expected == [*stage.reasons(one, state)]
    assert (not expected) == stage.Fresh(one)(None, state.get(one.name, "_values_:"))


def test_an_operational_key_is_shown_and_makes_nothing_stale(state: DurableState) -> None:
    """
    `doit why` can say that it changes no number.
    """
    run(training(operational=lambda: {"train": {"max_restarts": 0}}))
    one = training(operational=lambda: {"train": {"max_restarts": 3}})

    assert [] == [*stage.reasons(one, state)]
    assert ["train.max_restarts: 0 -> 3"] == stage.operational_changes(one, state)


def test_of_a_view_only_a_part_decides(state: DurableState) -> None:
    """
    Its reasons are shown key by key; of a file that is made again before, those of what it will be.
    """
    script = Path("runs/a/launch.sh")
    script.parent.mkdir(parents=True)
    script.write_text("seed=1 # why")
    view = View(lambda text: {"seed": text.partition("#")[0].strip()}, lambda: "seed=3", Reads(), ("core.files",))
    one = training(views={str(script): view})
    run(one)
    script.write_text("seed=1 # another reason")
    assert [] == [*stage.reasons(one, state)]

    script.write_text("seed=2")

    assert ["runs/a/launch.sh: seed: 'seed=1' -> 'seed=2'"] == [*stage.reasons(one, state)]
    assert ["runs/a/launch.sh: seed: 'seed=1' -> 'seed=3'"] == [*stage.reasons(one, state, {str(script)})]
    assert not stage.Fresh(one)(None, state.get(one.name, "_values_:"))


def test_a_script_that_is_missing_is_named_before_anything_runs(state: DurableState) -> None:
    """
    As with `doit -s train:NAME` in a fresh clone.
    """
    view = View(lambda text: {}, str, Reads(), ("core.files",))

    why, _ = run(training(views={"runs/a/launch.sh": view}))

    assert "runs/a/launch.sh: is missing; run `./doit scripts:a`" == why


def test_a_task_for_developers_names_a_package_that_users_do_not_have() -> None:
    """
    "No module named ruff" does not say that ./doit would have installed it.
    """
    act = stage.utility("no_such_checker --all")["actions"][0]

    assert (
        "no_such_checker: is not installed; "
        "./doit adds the packages of developers before such a task: run it so, as `./doit test`"
    ) in str(act([]).get_msg())
