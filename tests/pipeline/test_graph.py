"""Which changes of the project's own code make which stages stale, against the real doit."""

import json

import pytest

from tests.helpers.project_copy import PROJECT, Copy
from thunder_train.config.load import load
from thunder_train.pipeline import graph

pytestmark = pytest.mark.ranks


def reasons(project: Copy) -> dict[str, list[str]]:
    """Why each stage would run now; an empty list for a fresh one."""
    answer: dict[str, list[str]] = json.loads(project.doit("why", "--json").output)
    return answer


def test_texts_for_people_make_nothing_stale(project: Copy) -> None:
    """
    A better message, label or help text must not cost a training.
    """
    project.edit("thunder_train/launch/supervisor.py", "silent for", "without a heartbeat for")
    project.edit("thunder_train/core/console.py", 'TextColumn("train")', 'TextColumn("training")')
    project.edit("thunder_train/config/train.py", "Step size of AdamW", "Learning rate of AdamW")

    done = project.doit()

    assert (0, [], []) == (done.status, done.ran, done.restored)


def test_a_changed_training_step_makes_the_training_stale(project: Copy) -> None:
    """
    What may change a number runs again, and `doit why` names the file.
    """
    project.edit("thunder_train/worker/train/step.py", "norm + 1e-6", "norm + 1e-5")

    stale = reasons(project)

    assert ["thunder_train/worker/train/step.py: code changed"] == stale["train:smoke"]
    assert ["after train:smoke: its output may change"] == stale["evaluate:smoke"]
    assert [] == [name for name in ("data:agp-nko-corrections", "model:nano", "scripts:smoke") if stale[name]]


def test_stages_with_ranks_name_their_machines() -> None:
    """
    Where a stage has ranks, another one must wait for its turn.
    """
    smoke = load(PROJECT).recipes["smoke"]

    assert [("localhost",)] * 3 == [make(smoke).machines for make in (graph.check, graph.train, graph.evaluate)]
    assert [()] * 3 == [make(smoke).machines for make in (graph.scripts, graph.report, graph.manifest)]
