"""The keys of [models.NAME] that say how messages become text."""

import json
from pathlib import Path

import pytest

from tests.config.conftest import PROJECT, RECIPE, problems
from thunder_train.config.load import load

NANO = '[models.nano]\nkind = "nano"\n'


def with_model(project: Path, keys: str) -> Path:
    """The project with more keys of its model."""
    assert NANO in PROJECT
    (project / "thunder.toml").write_text(PROJECT.replace(NANO, NANO + keys))
    return project


def test_a_model_names_its_chat_template_and_its_arguments(project: Path) -> None:
    """
    Qwen3 and its like need enable_thinking, a base model a template.
    """
    (project / "chat.jinja").write_text("")
    keys = (
        'chat_template = "chat.jinja"\nend_answers = false\ntemplate = {enable_thinking = false, depth = 2, s = "x"}\n'
    )

    model = load(with_model(project, keys)).recipes["good"].model

    assert ("chat.jinja", {"enable_thinking": False, "depth": 2, "s": "x"}) == (model.chat_template, model.template)
    assert {"template": model.template, "end_answers": False} == model.chat


def test_nothing_given_decides_nothing(project: Path) -> None:
    """
    Every training made before there were these keys stays.
    """
    assert {} == load(project).recipes["good"].model.chat


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            'chat_template = "../chat.jinja"',
            "chat_template: '../chat.jinja' is no path inside the project; copy the file into templates/chat/",
        ),
        (
            'chat_template = "/etc/passwd"',
            "chat_template: '/etc/passwd' is no path inside the project; copy the file into templates/chat/",
        ),
        (
            "template = {tools = true}",
            "template.tools: is given to every chat template by the program itself; leave it out",
        ),
        (
            'template = {"a b" = true}',
            "template.a b: is no name of an argument; use letters, digits and _, as enable_thinking",
        ),
        (
            "template = {x = []}",
            "template.x: must be text in quotes or a number or true or false, is []; change its type",
        ),
        ("template = {x = nan}", "template.x: is nan; give a finite number"),
        ('end_answers = "no"', "end_answers: must be true or false, is 'no'; change its type"),
    ],
)
def test_each_mistake_is_named(project: Path, keys: str, expected: str) -> None:
    """
    A template argument that is ignored would train another text.
    """
    assert [f"thunder.toml: models.nano.{expected}"] == problems(with_model(project, f"{keys}\n"))


def test_a_template_that_is_not_there_is_told_before_anything_runs(project: Path) -> None:
    """
    The training would find out after the model was fetched.
    """
    with_model(project, 'chat_template = "templates/chat/none.jinja"\n')

    hint = "correct models.nano.chat_template in thunder.toml"
    assert [f"templates/chat/none.jinja: is missing; {hint}"] == problems(project)


@pytest.mark.parametrize(
    ("config", "keys", "expected"),
    [
        (
            {"num_experts": 8},
            "",
            "DoRA is not supported on layers of experts, which model 'nano' has; "
            'set it to "lora", or lora_keys to other layers, as ["self_attn.q_proj"]',
        ),
        (
            {"quantization": {"group_size": 64, "bits": 3}},
            "",
            "DoRA is not supported on layers of 3 bits, which model 'nano' has; set it to \"lora\"",
        ),
        ({"num_experts": 8}, 'lora_keys = ["self_attn.q_proj"]\n', ""),
        ({"num_experts": 1, "quantization": {"group_size": 64, "bits": 4}}, "", ""),
        ({"quantization": {"group_size": 64, "bits": 3, "model.x": {"group_size": 64, "bits": 4}}}, "", ""),
    ],
)
def test_dora_on_what_it_cannot_compute_is_told_at_once(
    project: Path, config: dict[str, object], keys: str, expected: str
) -> None:
    """
    mlx-lm has no DoRA for experts, and computes a wrong width for 3, 5 and 6 bits.
    """
    (project / "base").mkdir()
    (project / "base/config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 4, **config}))
    (project / "thunder.toml").write_text(PROJECT.replace(NANO, '[models.nano]\nkind = "path"\npath = "base"\n'))
    (project / "recipes/good.toml").write_text(f'{RECIPE}fine_tune_type = "dora"\n{keys}')

    if expected:
        assert [f"recipes/good.toml: train.fine_tune_type: {expected}"] == problems(project)
    else:
        assert "dora" == load(project).recipes["good"].train.fine_tune_type
