"""The worker's flags."""

from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest

from thunder_train import ThunderError
from thunder_train.config.evaluate import Evaluate
from thunder_train.config.train import Train, flag_of
from thunder_train.worker import evaluate_args
from thunder_train.worker.args import LAUNCHER_ONLY, Settings, parse, parser_of

NEEDED = [
    *("--model", "m", "--train-data", "t", "--valid-data", "v"),
    *("--num-iters", "4", "--learning-rate", "1e-3", "--adapter-path", "a"),
]


def test_every_bad_value_is_reported_at_once() -> None:
    """
    A user corrects a command line once, not flag by flag.
    """
    bad = ["--lora-rank", "0", "--learning-rate", "nan", "--lora-dropout", "1", "--warmup-steps", "4", "--seed", "-1"]

    with pytest.raises(ThunderError) as caught:
        parse([*NEEDED, *bad])

    expected = [
        "--lora-rank: is 0; give at least 1",
        "--learning-rate: is nan; give a finite number",
        "--lora-dropout: is 1.0; give at most 0.9 share",
        "--seed: is -1; give at least 0",
        "--warmup-steps: is 4 of 4 steps; warm up for fewer steps than there are",
    ]
    assert expected == str(caught.value).split("\n")


@pytest.mark.parametrize(
    ("adapter", "expected"),
    [("x/adapter", "x/checkpoints"), ("x/one", "x/checkpoints/one"), ("two", "checkpoints/two")],
)
def test_checkpoints_lie_beside_the_adapter(adapter: str, expected: str) -> None:
    """
    A training by hand must not find another one's checkpoints, neither the build's nor those of an adapter beside it.
    """
    assert expected == str(parse([*NEEDED, "--adapter-path", adapter]).checkpoint_path)
    assert "kept" == str(parse([*NEEDED, "--adapter-path", adapter, "--checkpoint-path", "kept"]).checkpoint_path)


def test_an_unknown_flag_is_one_line() -> None:
    """
    argparse would print its usage and exit; every mistake here is a ThunderError.
    """
    with pytest.raises(ThunderError) as caught:
        parse([*NEEDED, "--lora-alfa", "16"])

    expected = (
        "thunder_train.worker: unrecognized arguments: --lora-alfa 16; see `python -m thunder_train.worker --help`"
    )
    assert expected == str(caught.value)


def test_lora_keys_are_a_comma_list_and_empty_means_all() -> None:
    """
    launch.sh always passes the flag, also when the recipe names no key.
    """
    assert () == parse([*NEEDED, "--lora-keys", ""]).lora_keys
    assert ("self_attn.q_proj", "mlp.up_proj") == parse(
        [*NEEDED, "--lora-keys", "self_attn.q_proj, mlp.up_proj"]
    ).lora_keys


@pytest.mark.parametrize("weights", ["2,x", "2,,1", "0,1", "-1,1", "inf,1", "nan,1", ""])
def test_a_weight_is_a_number_above_0(weights: str) -> None:
    """
    Work is divided by it.
    """
    with pytest.raises(ThunderError) as caught:
        parse([*NEEDED, f"--weights={weights}"])

    expected = f"argument --weights: must be a number above 0 for each rank, as 2.0,1.0, not {weights!r}"
    assert expected in str(caught.value)
    assert (2.0, 1.0) == parse([*NEEDED, "--weights", "2,1"]).weights


def test_a_split_model_has_no_weights() -> None:
    """
    Every rank computes each row there, so the flag would have no effect.
    """
    with pytest.raises(ThunderError) as caught:
        parse([*NEEDED, "--weights", "2,1", "--strategy", "tensor"])

    expected = (
        "--weights: divides rows between ranks, and with `--strategy tensor` every rank takes all rows; "
        "leave it out, or use `--strategy data`"
    )
    assert expected == str(caught.value)


KEYS = [key for key in fields(Train) if key.name not in LAUNCHER_ONLY]
SHARED = [
    (Evaluate, "max_tokens"),
    (Evaluate, "batch_size"),
    (Train, "max_seq_len"),
    (Train, "stall_timeout_s"),
    (Train, "start_timeout_s"),
]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_every_training_key_is_a_flag_as_declared(key: "Field[Any]") -> None:
    """
    A flag with a default, help or choices of its own would drift from what docs/recipe.md says.
    """
    action = parser_of(Settings, "worker", "")._option_string_actions[flag_of(key.name)]

    assert key.name == action.dest
    assert (key.default is MISSING) == action.required
    assert (None if action.required else key.default) == action.default
    assert key.metadata.get("allowed") == action.choices
    assert str(action.help).startswith(key.metadata["meta"]["help"])


def bounds_broken(flag: str, value: float) -> list[str]:
    """The lines that refuse a value for its bounds."""
    try:
        parse([*NEEDED, f"{flag}={value}"])
    except ThunderError as error:
        return [line for line in str(error).splitlines() if line.startswith(f"{flag}: is {value}; give ")]
    return []


@pytest.mark.parametrize("key", [key for key in KEYS if "min" in key.metadata], ids=lambda key: key.name)
def test_a_flag_has_the_bounds_of_its_key(key: "Field[Any]") -> None:
    """
    A recipe that the loader accepts must not fail in the worker, on every host and with the model loaded.
    """
    low, high, flag = key.metadata["min"], key.metadata["max"], flag_of(key.name)

    assert ["least", "most"] == [bounds_broken(flag, value)[0].split()[5] for value in (low - 1, high + 1)]
    assert [] == bounds_broken(flag, high)
    assert bool(key.metadata["meta"].get("above")) == bool(bounds_broken(flag, low))


def test_a_bound_that_is_not_allowed_itself_is_refused() -> None:
    """
    An adapter of scale 0 would train and change nothing.
    """
    with pytest.raises(ThunderError) as caught:
        parse([*NEEDED, "--lora-scale", "0"])

    assert "--lora-scale: is 0.0; give more than 0.0" == str(caught.value)


@pytest.mark.parametrize(("flag", "value"), [("--report-to", "wandb,tensorboard"), ("--lora-keys", "a b")])
def test_each_item_of_a_list_is_checked(flag: str, value: str) -> None:
    """
    As in a recipe.
    """
    with pytest.raises(ThunderError, match=f"^{flag}: "):
        parse([*NEEDED, flag, value])


def test_a_fraction_is_no_whole_number_and_is_reported_with_the_rest() -> None:
    """
    argparse would stop at the first.
    """
    with pytest.raises(ThunderError) as caught:
        parse([*NEEDED, "--stall-timeout", "1.5", "--seed", "nan"])

    assert "--stall-timeout: is 1.5; give a whole number\n--seed: is nan; give a whole number" == str(caught.value)


def test_keys_that_exclude_each_other_are_named_as_flags() -> None:
    """
    The rule is that of the recipe's keys, in the words of the command line.
    """
    with pytest.raises(ThunderError) as caught:
        parse([*NEEDED, "--fine-tune-type", "dora", "--strategy", "tensor", "--global-batch-size=8", "--batch-size=2"])

    assert [
        "--global-batch-size: sets the rows of a step, and so do --batch-size and --grad-accumulation; "
        "leave the other two out",
        "--fine-tune-type: DoRA is not supported with `--strategy tensor`; "
        "use `--fine-tune-type lora`, or `--strategy data`",
    ] == str(caught.value).splitlines()


@pytest.mark.parametrize(("kind", "name"), SHARED)
def test_an_evaluation_takes_its_keys_as_declared(kind: type, name: str) -> None:
    """
    evaluate.sh passes keys of [evaluate] and of [train].
    """
    key = next(each for each in fields(kind) if each.name == name)
    action = parser_of(evaluate_args.Task, "generate", "")._option_string_actions[flag_of(name)]

    assert (key.default, key.metadata["meta"]["help"]) == (action.default, str(action.help).partition(" (default")[0])


def test_how_messages_become_text_is_no_flag_until_it_is_given() -> None:
    """
    A checkpoint from before there were such flags goes on; one of another template, or of other arguments, does not.
    """
    plain, new = parse(NEEDED), ["--template-args", '{"b": 1,  "a": "ߒ"}', "--end-answers", "false"]
    other = parse([*NEEDED, *new, "--chat-template", "x.jinja"])

    assert ({}, {}, {}) == (plain.template_arguments(), plain.chat_flags(), plain.chat_files())
    assert {"a": "ߒ", "b": 1} == other.template_arguments()
    assert {"--chat-template": Path("x.jinja")} == other.chat_files()
    assert {"template_args": '{"a": "\\u07d2", "b": 1}', "end_answers": False} == other.chat_flags()
    assert plain.numeric() | other.chat_flags() == other.numeric()


def test_arguments_of_a_template_are_checked() -> None:
    """
    A template without its arguments would train other text, and nobody would see it.
    """
    with pytest.raises(ThunderError) as caught:
        parse([*NEEDED, "--template-args", '{"messages": []}'])

    assert "argument --template-args: messages is given to every chat template by the program itself" in str(
        caught.value
    )
