"""Which changes of the project's own code make which stages stale, against the real doit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

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
    project.edit("thunder_train/core/console.py", 'self._bar("train"', 'self._bar("training"')
    project.edit("thunder_train/config/train.py", "Step size of the optimizer", "Learning rate of the optimizer")

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


def test_how_messages_become_text_decides_training_and_evaluation(project: Copy) -> None:
    """
    Other tokens give another adapter and other scores, and `doit why` names the key or the file; the model stays.
    """
    shutil.copy(PROJECT / "templates/chat/plain.jinja", project.path / "chat.jinja")
    project.edit(
        "thunder.toml", "[models.nano]", "[models.nano]\nend_answers = false\ntemplate = {enable_thinking = true}"
    )
    keys = ["model.end_answers: None -> False", "model.template.enable_thinking: None -> True"]

    by_key = reasons(project)
    project.edit(
        "thunder.toml", "end_answers = false\ntemplate = {enable_thinking = true}", 'chat_template = "chat.jinja"'
    )
    by_file = reasons(project)

    for name in ("train:smoke", "evaluate:smoke"):
        assert (keys, ["chat.jinja: new input"]) == (by_key[name][:2], by_file[name][:1])
    assert [] == [*by_key["model:nano"], *by_file["model:nano"]]


def test_a_chat_template_counts_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One that is moved trains the same tokens; one that is edited does not.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.jinja").write_text("a")
    (tmp_path / "other.jinja").write_text("a")
    smoke = load(PROJECT).recipes["smoke"]
    one, other = (
        replace(smoke, model=replace(smoke.model, chat_template=name)) for name in ("one.jinja", "other.jinja")
    )

    same = [graph.train(each).parts_without_views()["inputs"] for each in (one, other)]
    (tmp_path / "one.jinja").write_text("b")
    edited = graph.train(one).parts_without_views()["inputs"]

    assert same[0] == same[1] != edited
    assert "chat template" not in graph.train(smoke).parts_without_views()["inputs"]


def test_without_a_key_of_its_own_a_model_adds_nothing_to_a_stage() -> None:
    """
    No training from before these keys may become stale.
    """
    smoke = load(PROJECT).recipes["smoke"]

    assert [{"train", "cluster"}, {"dataset", "evaluate", "train", "cluster"}] == [
        {*make(smoke).reads} for make in (graph.train, graph.evaluate)
    ]
    assert not {"chat_template", "template", "end_answers"} & {*graph.model(smoke.model).reads["model"]}
