"""The worker's flags."""

import pytest

from thunder_train import ThunderError
from thunder_train.worker.args import parse

NEEDED = [
    *("--model", "m", "--train-data", "t", "--valid-data", "v"),
    *("--num-iters", "4", "--learning-rate", "1e-3", "--adapter-path", "a"),
]


def test_every_bad_value_is_reported_at_once():
    """
    A user mends a command line in one go, not flag by flag.
    """
    bad = ["--lora-rank", "0", "--learning-rate", "nan", "--lora-dropout", "1", "--warmup-steps", "4", "--seed", "-1"]

    with pytest.raises(ThunderError) as caught:
        parse([*NEEDED, *bad])

    expected = [
        "--lora-rank: must be 1 or more, not 0",
        "--seed: must be 0 or more, not -1",
        "--learning-rate: must be above 0, not nan",
        "--lora-dropout: must be from 0 to below 1, not 1.0",
        "--warmup-steps: is 4 of 4 steps; warm up for fewer steps than there are",
    ]
    assert expected == str(caught.value).split("\n")


def test_an_unknown_flag_is_one_line():
    """
    argparse would print its usage and exit; every mistake here is a ThunderError.
    """
    with pytest.raises(ThunderError) as caught:
        parse([*NEEDED, "--lora-alpha", "16"])

    expected = (
        "thunder_train.worker: unrecognized arguments: --lora-alpha 16; see `python -m thunder_train.worker --help`"
    )
    assert expected == str(caught.value)


def test_lora_keys_are_a_comma_list_and_empty_means_all():
    """
    launch.sh always passes the flag, also when the recipe names no key.
    """
    assert () == parse([*NEEDED, "--lora-keys", ""]).lora_keys
    assert ("self_attn.q_proj", "mlp.up_proj") == parse(
        [*NEEDED, "--lora-keys", "self_attn.q_proj, mlp.up_proj"]
    ).lora_keys


@pytest.mark.parametrize("weights", ["2,x", "2,,1", "0,1", "-1,1", "inf,1", "nan,1", ""])
def test_a_weight_is_a_number_above_0(weights):
    """
    Work is divided by it.
    """
    with pytest.raises(ThunderError) as caught:
        parse([*NEEDED, f"--weights={weights}"])

    expected = f"argument --weights: must be a number above 0 for each rank, as 2.0,1.0, not {weights!r}"
    assert expected in str(caught.value)
    assert (2.0, 1.0) == parse([*NEEDED, "--weights", "2,1"]).weights


def test_a_split_model_has_no_weights():
    """
    Every rank computes each row there; a flag without effect would be a lie.
    """
    with pytest.raises(ThunderError) as caught:
        parse([*NEEDED, "--weights", "2,1", "--strategy", "tensor"])

    expected = (
        "--weights: share out rows, and with `--strategy tensor` every rank takes all of them; "
        "leave it out, or use `--strategy data`"
    )
    assert expected == str(caught.value)
