"""A model split over ranks trains as a whole one does."""

import copy
import json

import numpy as np
import pytest

from tests.helpers import families
from tests.helpers.project_copy import PROJECT
from tests.helpers.tp_probe import CASES, adapted
from tests.worker.conftest import python
from thunder_train import ThunderError

GEMMA = PROJECT / "tests/helpers/gemma-4-e2b-4bit.config.json"
LAUNCHES = {2: list(CASES), 4: ["llama-4", "qwen2-0", "qwen3-4", "gemma3-0", "gemma4-4", "gemma4_31b-0"]}
"""The cases that so many ranks run: on a machine of two cores, four of them are slow."""
RUNS = [
    pytest.param(ranks, case, marks=() if ranks == 2 else pytest.mark.slow)
    for ranks, cases in LAUNCHES.items()
    for case in cases
]


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """(number of ranks) -> the folder where the probe wrote, after one launch for all its cases."""
    folders = {}

    def folder(ranks):
        if ranks not in folders:
            folders[ranks] = tmp_path_factory.mktemp(f"ranks-{ranks}")
            host = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"], "rdma": []}
            hostfile = folders[ranks] / "hosts.json"
            hostfile.write_text(json.dumps({"backend": "ring", "envs": [], "hosts": [host] * ranks}))
            launcher = ["--hostfile", str(hostfile), "--log-dir", str(folders[ranks] / "logs")]
            probe = [
                "--module",
                "tests.helpers.tp_probe",
                "--out",
                str(folders[ranks]),
                "--cases",
                ",".join(LAUNCHES[ranks]),
            ]
            done = python("thunder_train.launch", launcher + probe, PROJECT)
            assert (0, "") == (done.returncode, done.stderr)
        return folders[ranks]

    return folder


def facts(folder, ranks):
    """What each rank wrote."""
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.ranks
@pytest.mark.parametrize(("ranks", "case"), RUNS)
def test_a_split_model_trains_as_a_whole_one_does(launched, ranks, case):
    """
    The first Thunder Train's tensor mode ran, printed a loss, and computed something else.
    """
    found = [each[case] for each in facts(launched(ranks), ranks)]

    assert 1e-5 > max(each["loss"] for each in found), "losses of 5 steps, relative"
    assert 1e-4 > max(each["gradient"] for each in found), "first gradient, relative to its largest number"
    assert 1e-4 > max(each["adapter"] for each in found), "adapter after 5 steps of AdamW"


@pytest.mark.ranks
@pytest.mark.parametrize(("ranks", "case"), RUNS)
def test_every_rank_ends_with_the_same_whole_adapter(launched, ranks, case):
    """
    Any rank can save it; a rank that drifts would compute another model.
    """
    assert 1 == len({each[case]["digest"] for each in facts(launched(ranks), ranks)})


@pytest.mark.ranks
@pytest.mark.parametrize("case", [case for case in CASES if case != "packed"])
def test_mlx_lm_loads_the_adapter_into_the_whole_model(launched, case):
    """
    What was trained on two machines is used on one, by programs that know nothing of ranks.
    """
    import mlx.core as mx
    from mlx_lm.tuner.utils import load_adapters

    from tests.helpers.tp_probe import batch

    folder = launched(2) / case
    whole = load_adapters(families.build(CASES[case].name, CASES[case].bits), str(folder))
    whole.eval()
    logits = np.array(whole(mx.array(batch(is_packed=False).tokens)))

    assert 1e-4 > np.abs(logits - np.load(folder / "logits.npy")).max()


@pytest.mark.ranks
@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_rank_holds_its_share_of_the_weights_alone(launched, ranks):
    """
    A view of a share would keep the whole weight in memory, and the model would still not fit.
    """
    for each in facts(launched(ranks), ranks):
        assert 1 / ranks == pytest.approx(each["memory"], rel=0.02)


def built(name, **changed):
    """A model of families.CONFIGS, its config changed."""
    from mlx_lm.utils import _get_classes

    config = copy.deepcopy(families.CONFIGS[name]) | changed
    model_class, arguments = _get_classes(config)
    return model_class(arguments.from_dict(config))


def texts(model, ranks):
    """The problems as users read them."""
    from thunder_train.worker.tensor_parallel import problems

    return [str(problem) for problem in problems(model, ranks)]


@pytest.mark.mlx
@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_gemma_4_e2b_can_be_split_though_it_has_one_key_value_head(ranks):
    """
    The seed's model, built from its config alone: no weight is computed to ask.
    """
    import mlx.nn as nn
    from mlx_lm.utils import _get_classes

    config = json.loads(GEMMA.read_text())
    model_class, arguments = _get_classes(config)
    model = model_class(arguments.from_dict(config))
    nn.quantize(model, **config["quantization"])

    assert [] == texts(model, ranks)


@pytest.mark.mlx
def test_heads_and_units_that_do_not_divide_are_refused_with_what_would_do():
    """
    Before launch, and all at once: each try costs a loading of the model on every machine.
    """
    expected = [
        "--strategy tensor: 8 query heads cannot be split over 3 ranks; use 2 or 4 or 8 ranks",
        "--strategy tensor: 128 MLP units cannot be split over 3 ranks; use 2 or 4 or 8 ranks",
    ]
    assert expected == texts(built("llama"), 3)


@pytest.mark.mlx
def test_key_value_heads_that_neither_split_nor_repeat_are_refused():
    """
    With 6 of them on 4 ranks a rank's query heads would need one and a half.
    """
    model = built("llama", num_attention_heads=12, num_key_value_heads=6, intermediate_size=144)

    expected = "6 key/value heads can neither be split over 4 ranks nor repeated on them; use 2 or 3 or 6 or 12 ranks"
    assert [f"--strategy tensor: {expected}"] == texts(model, 4)


@pytest.mark.mlx
def test_quantised_groups_are_not_cut():
    """
    A group has one scale, so half of it means nothing.
    """
    import mlx.nn as nn

    model = built("llama", intermediate_size=64)
    nn.quantize(model, group_size=32, bits=4)

    expected = "2 quantised groups of down_proj cannot be split over 4 ranks; use 2 ranks"
    assert [f"--strategy tensor: {expected}"] == texts(model, 4)


@pytest.mark.mlx
def test_other_families_are_refused_with_the_list_of_supported_ones():
    """
    mlx-lm converts nothing on such a model, and says nothing.
    """
    listed = "gemma3, gemma3_text, gemma4, gemma4_text, llama, qwen2, qwen3"
    multipliers = ("logits_scaling", "attention_multiplier", "embedding_multiplier", "residual_multiplier")
    model = built("llama", model_type="granite", **dict.fromkeys(multipliers, 1.0))

    expected = f"a granite model cannot be split; use --strategy data, or a model of one of: {listed}"
    assert [f"--strategy tensor: {expected}"] == texts(model, 2)


@pytest.mark.mlx
def test_experts_and_dora_are_refused():
    """
    Both would be split wrongly without a word.
    """
    from mlx_lm.tuner.utils import linear_to_lora_layers

    experts = built("gemma4_31b", enable_moe_block=True, num_experts=2, top_k_experts=1, moe_intermediate_size=32)
    dora = built("llama")
    linear_to_lora_layers(dora, 1, {"rank": 2, "scale": 1.0, "dropout": 0.0}, use_dora=True)

    assert ["--strategy tensor: layers of experts cannot be split; use --strategy data"] == texts(experts, 2)
    assert ["--strategy tensor: DoRA cannot be split; use LoRA"] == texts(dora, 2)


@pytest.mark.mlx
def test_what_cannot_be_split_is_not_touched():
    """
    A refusal comes before the first change.
    """
    from thunder_train.worker.ranks import Ranks
    from thunder_train.worker.tensor_parallel import shard

    model = adapted(CASES["llama-0"])
    with pytest.raises(ThunderError, match="8 query heads cannot be split over 3 ranks"):
        shard(model, Ranks(rank=0, size=3))

    assert 8 == model.layers[0].self_attn.n_heads
