"""An upgrade and `doit accept`, against the real doit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from doit.exceptions import InvalidCommand
from doit.task import Task

from tests.helpers.project_copy import Copy, environment
from thunder_train import ThunderError
from thunder_train.build.key import Reads, Stage
from thunder_train.cli.accept import selected

RECORD = """
import sys
from thunder_train.build.key import STATS
from thunder_train.core import files, revisions
table = {stage: {"revision": 1, "code": code} for stage, code in revisions.hashes(STATS).items()}
table["train"]["revision"] = int(sys.argv[1])
files.write_json(revisions.FILE, table)
"""


def record(project: Copy, train: int) -> None:
    """Make the project's code the recorded one. train: the revision of that stage; of the others it is 1."""
    argv = [sys.executable, "-c", RECORD, str(train)]
    subprocess.run(argv, cwd=project.path, env=environment(project.path), check=True)


@pytest.mark.ranks
@pytest.mark.slow
def test_an_upgrade_trains_again_only_if_it_says_so(project: Copy) -> None:
    """
    The same revision: nothing is made again, and the manifest keeps its bytes. Another one: the training is stale, or
    accepted, which report and manifest state.
    """
    manifest, report = (project.path / "runs/smoke" / name for name in ("manifest.json", "report.md"))
    record(project, 1)
    project.doit("accept", "train:smoke", "evaluate:smoke", "data", "model")
    for path in project.path.rglob("accepted.json"):
        path.unlink()
    assert 0 == project.doit().status
    before = manifest.read_bytes()

    project.edit("thunder_train/worker/train/step.py", "norm + 1e-6", "1e-6 + norm")
    record(project, 1)
    done = project.doit()
    assert (0, ["manifest:smoke"], []) == (done.status, done.ran, done.restored)
    assert before == manifest.read_bytes()

    record(project, 2)
    assert "train:smoke: code: revision 1 -> 2\n" in project.doit("why", "train:smoke").output
    accepted = project.doit("accept", "train:smoke")
    assert (0, "train:smoke: made by revision 1, accepted under revision 2\n") == (accepted.status, accepted.output)
    done = project.doit()
    assert (0, ["report:smoke", "manifest:smoke"], []) == (done.status, done.ran, done.restored)
    run = json.loads(manifest.read_bytes())
    assert {"train": {"code": {"recorded": "revision 1", "accepted": "revision 2"}}} == run["accepted"]
    assert dict.fromkeys(("data", "evaluate", "model", "train"), "revision 1") == run["code"]
    assert "- **accepted** as it stands: train: made by revision 1, accepted under revision 2\n" in report.read_text()

    refused = project.doit("accept")
    hint = "`./doit accept train:NAME`; `./doit why` shows what is stale"
    assert (3, f"doit accept: needs the tasks whose outputs stand; {hint}\n") == (refused.status, refused.output)


def tasks() -> list[Task]:
    """A group with one training, a report, a recipe that cannot be used, and a task that is no stage."""

    def stage(name: str) -> Task:
        return Task(name, None, meta={"stage": Stage(name, _make, (), {}, Reads(), ())}, subtask_of=name.split(":")[0])

    group = Task("train", None, task_dep=["train:smoke"], has_subtask=True)
    broken = Task("train:broken", None, meta={"problem": "recipes/broken.toml: is empty; write it"})
    return [group, stage("train:smoke"), stage("report:smoke"), broken, Task("test", None)]


def _make(_: Path) -> None:
    raise AssertionError("to choose tasks runs none of them")


@pytest.mark.parametrize("words", [["train:smoke"], ["train"], ["train", "train:smoke"], ["train:s*"]])
def test_a_stage_is_named_by_itself_or_by_its_group(words: list[str]) -> None:
    """
    As everywhere in doit.
    """
    assert ["train:smoke"] == [stage.name for stage in selected(tasks(), words)]


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("report:smoke", "cannot be accepted; only data, model, train, evaluate can, because the others take seconds"),
        ("test", "cannot be accepted; only data, model, train, evaluate can, because the others take seconds"),
    ],
)
def test_other_tasks_are_refused(word: str, text: str) -> None:
    """
    Their outputs cost seconds, and no manifest states their code.
    """
    with pytest.raises(ThunderError) as raised:
        selected(tasks(), [word])

    assert f"{word}: {text}; `./doit {word}`" == str(raised.value)


def test_the_problem_of_a_recipe_is_shown() -> None:
    """
    It is the reason for which there is no stage.
    """
    with pytest.raises(ThunderError) as raised:
        selected(tasks(), ["train:broken"])

    assert "recipes/broken.toml: is empty; write it" == str(raised.value)


def test_a_word_that_names_nothing_is_refused() -> None:
    """
    doit's main program says which name is near.
    """
    with pytest.raises(InvalidCommand):
        selected(tasks(), ["trian:smoke"])
