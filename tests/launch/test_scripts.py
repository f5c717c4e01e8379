"""Rendered scripts show every flag of a recipe."""

import json
import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT
from thunder_train.cluster.hostfile import hostfile
from thunder_train.config.load import load
from thunder_train.config.project import Host, Recipe, deciding
from thunder_train.config.toml_io import resolved_toml
from thunder_train.core import paths, templates
from thunder_train.launch import scripts


@pytest.fixture
def smoke() -> Recipe:
    """The shipped recipe."""
    return load(PROJECT).recipes["smoke"]


def test_launch_flags_keep_the_order_of_the_first_command(smoke: Recipe) -> None:
    """
    The first command of this project had them in this order; others come before (launcher) and after.
    """
    flags = [flag for flag, _ in scripts.launch_flags(smoke)]
    first = "--model --train-data --valid-data --strategy --num-iters --batch-size --num-layers --lora-rank "
    first += "--learning-rate --adapter-path --log-every --eval-every --save-every --max-seq-len"

    assert first.split() == [flag for flag in flags if flag in first.split()]


def test_every_training_key_reaches_the_script(smoke: Recipe) -> None:
    """
    A worker reads nothing but its flags, so a key that is missing in launch.sh would be ignored.
    """
    changed = replace(smoke, train=replace(smoke.train, lora_keys=("self_attn.q_proj", "mlp.up_proj"), seed=77))
    values = [str(value) for _, value in scripts.launch_flags(changed)]

    assert {"77", "self_attn.q_proj,mlp.up_proj", "1e-06", "512", "refuse"} <= set(values)
    flags = {flag for flag, _ in scripts.launch_flags(smoke)}
    assert {f"--{name.removesuffix('_s').replace('_', '-')}" for name in vars(smoke.train)} <= flags


def test_a_later_key_is_recorded_where_it_is_not_the_default(smoke: Recipe) -> None:
    """
    launch.sh shows it always; a manifest of a run that could do without it reads as it always did.
    """
    changed = replace(smoke, train=replace(smoke.train, optimizer="lion"))

    assert ["adamw", "lion"] == [dict(scripts.launch_flags(each))["--optimizer"] for each in (smoke, changed)]
    recorded = [scripts.recorded_flags(each, "launch.sh").get("--optimizer") for each in (smoke, changed)]
    assert [None, "lion"] == recorded
    assert [None, "lion"] == [deciding(each.train).get("optimizer") for each in (smoke, changed)]


def test_weights_are_passed_if_they_differ(smoke: Recipe) -> None:
    """
    Equal ranks, such as local ones, need no flag; the tensor strategy uses weights in the evaluation only;
    hostfile.json keeps the format of MLX.
    """
    two = replace(smoke.cluster, hosts=(Host("mac4", ("10.0.5.1",), (), 2.0), Host("mac5", ("10.0.5.2",), ())))
    uneven = replace(smoke, cluster=two)
    split = replace(uneven, train=replace(smoke.train, strategy="tensor"))

    assert "2.0,1.0" == dict(scripts.launch_flags(uneven))["--weights"]
    assert ["2.0,1.0"] * 2 == [dict(scripts.evaluate_flags(each))["--weights"] for each in (uneven, split)]
    assert "--weights" not in {flag for each in (smoke, split) for flag, _ in scripts.launch_flags(each)}
    assert "--weights" not in dict(scripts.evaluate_flags(smoke))
    assert {"ssh", "ips", "rdma"} == {key for host in hostfile(two)["hosts"] for key in host}


def test_the_launch_script_parses_and_holds_each_flag_once(smoke: Recipe) -> None:
    """
    bash itself reads the rendered script.
    """
    flags = scripts.launch_flags(smoke)
    script = templates.shell(PROJECT / "templates/launch.sh.j2", {"recipe": "smoke", "flags": flags})

    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    words = shlex.split(script.partition("exec ")[2].replace("\\\n", ""))
    assert [str(part) for flag in flags for part in flag] == words[3:-1]


@pytest.mark.parametrize("name", ["launch.sh", "evaluate.sh"])
@pytest.mark.parametrize("is_link", [True, False])
def test_a_script_by_hand_runs_in_the_environment_that_venv_is_now(tmp_path: Path, name: str, is_link: bool) -> None:
    """
    ./doit may turn the link to another environment while the training runs.
    """
    place = ".venv-1" if is_link else ".venv"
    (tmp_path / place / "bin").mkdir(parents=True)
    (tmp_path / place / "bin/python").write_text('#!/bin/sh\necho "$0"\n')
    (tmp_path / place / "bin/python").chmod(0o755)
    if is_link:
        (tmp_path / ".venv").symlink_to(place)
    (tmp_path / "runs/smoke").mkdir(parents=True)
    script = tmp_path / "runs/smoke" / name
    script.write_text(templates.shell(PROJECT / f"templates/{name}.j2", {"recipe": "smoke", "flags": []}))
    environment = {key: text for key, text in os.environ.items() if key != "THUNDER_PYTHON"}

    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=True)

    assert f"{place}/bin/python" == done.stdout.strip().removeprefix(f"{tmp_path}/")


def test_launch_sh_names_no_folder_of_checkpoints(smoke: Recipe) -> None:
    """
    With --adapter-path it would find the checkpoints of another training: they lie beside the adapter that is given.
    """
    assert "--checkpoint-path" not in dict(scripts.launch_flags(smoke))


def test_the_resolved_recipe_reads_back_to_itself(smoke: Recipe) -> None:
    """
    toml.dumps is checked on every recipe, hostile text included.
    """
    hostile = replace(smoke, description='quotes " \\ and\nlines \t ߒߞߏ')

    assert 'quotes \\" \\\\ and\\nlines \\t ߒߞߏ' in resolved_toml(hostile)


def test_only_a_model_that_says_how_messages_become_text_has_flags_for_it(smoke: Recipe) -> None:
    """
    Without one the scripts are what they were; the arguments reach a worker as one word, whatever they hold.
    """
    given = {"enable_thinking": False, "style": 'it\'s $HOME "ߒ"'}
    model = replace(smoke.model, chat_template="templates/chat/plain.jinja", template=given, end_answers=False)
    other = replace(smoke, model=model)
    flags = ("--chat-template", "--template-args", "--end-answers")

    assert not {*flags} & {flag for name in paths.SCRIPTS for flag, _ in scripts.flags_of(smoke, name)}
    for name in paths.SCRIPTS:
        text = templates.shell(
            PROJECT / f"templates/{name}.j2", {"recipe": "x", "flags": scripts.flags_of(other, name)}
        )
        words = shlex.split(text.partition("exec ")[2].replace("\\\n", ""))
        word = {flag: words[words.index(flag) + 1] for flag in flags}
        assert ["templates/chat/plain.jinja", given, "false"] == [
            word["--chat-template"], json.loads(word["--template-args"]), word["--end-answers"]
        ]  # fmt: skip
        assert {} == scripts.additions(other, name, text.replace("recipe x", "recipe smoke"))
