"""Rendered scripts show every flag, and a hostile value stays a value."""

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT
from thunder_train import ThunderError
from thunder_train.cluster.hostfile import hostfile
from thunder_train.config.load import load
from thunder_train.config.project import Host, Recipe
from thunder_train.config.toml_io import resolved_toml
from thunder_train.launch import scripts

HOSTILE = "$(touch pwned); `id` 'x' \"y\" ../.. \n --flag"


@pytest.fixture
def smoke() -> Recipe:
    """The shipped recipe."""
    return load(PROJECT).recipes["smoke"]


def test_launch_flags_begin_as_the_seed_wrote_them(smoke: Recipe) -> None:
    """
    The seed's command shape, in its order; ours come before (launcher) and after.
    """
    flags = [flag for flag, _ in scripts.launch_flags(smoke)]
    seed = "--model --train-data --valid-data --strategy --num-iters --batch-size --num-layers --lora-rank "
    seed += "--learning-rate --adapter-path --log-every --eval-every --save-every --max-seq-len"

    assert seed.split() == [flag for flag in flags if flag in seed.split()]


def test_every_training_key_reaches_the_script(smoke: Recipe) -> None:
    """
    launch.sh is all that a worker knows, so a key that is missing there would be ignored.
    """
    changed = replace(smoke, train=replace(smoke.train, lora_keys=("self_attn.q_proj", "mlp.up_proj"), seed=77))
    values = [str(value) for _, value in scripts.launch_flags(changed)]

    assert {"77", "self_attn.q_proj,mlp.up_proj", "1e-06", "512", "refuse"} <= set(values)
    flags = {flag for flag, _ in scripts.launch_flags(smoke)}
    assert {f"--{name.removesuffix('_s').replace('_', '-')}" for name in vars(smoke.train)} <= flags


def test_weights_are_told_where_they_differ(smoke: Recipe) -> None:
    """
    Ranks that are alike, as local ones, need no flag; a split model has no use for it until its rows are dealt
    in an evaluation; hostfile.json stays MLX's.
    """
    two = replace(smoke.cluster, hosts=(Host("mac4", ("10.0.5.1",), (), 2.0), Host("mac5", ("10.0.5.2",), ())))
    uneven = replace(smoke, cluster=two)
    split = replace(uneven, train=replace(smoke.train, strategy="tensor"))

    assert "2.0,1.0" == dict(scripts.launch_flags(uneven))["--weights"]
    assert ["2.0,1.0"] * 2 == [dict(scripts.evaluate_flags(each))["--weights"] for each in (uneven, split)]
    assert "--weights" not in {flag for each in (smoke, split) for flag, _ in scripts.launch_flags(each)}
    assert "--weights" not in dict(scripts.evaluate_flags(smoke))
    assert {"ssh", "ips", "rdma"} == {key for host in hostfile(two)["hosts"] for key in host}


def test_a_hostile_value_is_one_quoted_word(tmp_path: Path) -> None:
    """
    Recipes are untrusted text: nothing in a value may run or become a second word.
    """
    (tmp_path / "t.j2").write_text("printf '%s' {{ value }}\n")
    script = scripts.shell(tmp_path / "t.j2", {"value": HOSTILE})

    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)

    assert HOSTILE == done.stdout
    assert ["t.j2"] == [path.name for path in tmp_path.iterdir()]


def test_the_launch_script_parses_and_holds_each_flag_once(smoke: Recipe) -> None:
    """
    bash itself reads the rendered script.
    """
    flags = scripts.launch_flags(smoke)
    script = scripts.shell(PROJECT / "templates/launch.sh.j2", {"recipe": "smoke", "flags": flags})

    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    words = shlex.split(script.partition("exec ")[2].replace("\\\n", ""))
    assert [str(part) for flag in flags for part in flag] == words[3:-1]


def test_an_undefined_name_is_an_error_that_names_the_template(tmp_path: Path) -> None:
    """
    A template that reads what it was not given would render a hole.
    """
    (tmp_path / "t.j2").write_text("{{ nothing }}")

    with pytest.raises(ThunderError) as caught:
        scripts.shell(tmp_path / "t.j2", {})

    assert f"{tmp_path}/t.j2: 'nothing' is undefined; use only the names it is given" == str(caught.value)


def test_a_template_cannot_reach_python(tmp_path: Path) -> None:
    """
    Jinja2's sandbox refuses attributes that lead to the interpreter.
    """
    (tmp_path / "t.j2").write_text("{{ ''.__class__.__mro__ }}")

    with pytest.raises(ThunderError, match="unsafe"):
        scripts.shell(tmp_path / "t.j2", {})


def test_a_broken_template_is_told_with_its_line(tmp_path: Path) -> None:
    """
    The line is where the mend is.
    """
    (tmp_path / "t.j2").write_text("one\n{% if %}\n")

    with pytest.raises(ThunderError, match=r"t\.j2:2: "):
        scripts.shell(tmp_path / "t.j2", {})


def test_a_value_cannot_add_markup_to_the_report() -> None:
    """
    A row that holds `<script>` or a table bar shows as text, on one line.
    """
    assert "&lt;script&gt; a \\| b \\`c\\` &amp;" == scripts.escape_markdown("<script> a | b\n`c` &".replace("\n", " "))
    assert "a b" == scripts.escape_markdown("a\nb")


def test_the_resolved_recipe_reads_back_to_itself(smoke: Recipe) -> None:
    """
    toml.dumps is proved on every recipe, hostile text included.
    """
    hostile = replace(smoke, description='quotes " \\ and\nlines \t ߒߞߏ')

    assert 'quotes \\" \\\\ and\\nlines \\t ߒߞߏ' in resolved_toml(hostile)
