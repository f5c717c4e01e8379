"""A model split over ranks trains like the whole model."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import families
from tests.helpers.project_copy import PROJECT
from tests.helpers.tp_probe import CASES, adapted
from tests.worker.conftest import python
from thunder_train import ThunderError

GEMMA = PROJECT / "tests/helpers/gemma-4-e2b-4bit.config.json"
LAUNCHES = {2: list(CASES), 4: ["llama-4", "qwen2-0", "qwen3-4", "gemma3-0", "gemma4-4", "gemma4_31b-0"]}
"""Number of ranks -> cases that they run; four ranks are slow on a machine with two cores."""
RUNS = [
    pytest.param(ranks, case, marks=() if ranks == 2 else pytest.mark.slow)
    for ranks, cases in LAUNCHES.items()
    for case in cases
]


Launched = Callable[[int], Path]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """(number of ranks) -> the folder with the probe's results, after one launch for all its cases."""
    folders: dict[int, Path] = {}

    def folder(ranks: int) -> Path:
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


def results(folder: Path, ranks: int) -> list[dict[str, Any]]:
    """What each rank wrote, by case."""
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(ranks)]


@pytest.mark.ranks
@pytest.mark.parametrize(("ranks", "case"), RUNS)
def test_a_split_model_trains_like_the_whole_model(launched: Launched, ranks: int, case: str) -> None:
    """
    The tensor mode of the first Thunder Train ran and printed a loss, but computed something else.
    """
    differences = [each[case] for each in results(launched(ranks), ranks)]

    assert 1e-5 > max(each["loss"] for each in differences), "losses of 3 steps, relative"
    assert 1e-4 > max(each["gradient"] for each in differences), "first gradient, relative to its largest number"
    assert 1e-4 > max(each["adapter"] for each in differences), "adapter after 3 steps of AdamW"


@pytest.mark.ranks
@pytest.mark.parametrize(("ranks", "case"), RUNS)
def test_every_rank_ends_with_the_same_whole_adapter(launched: Launched, ranks: int, case: str) -> None:
    """
    Any rank can save it; a rank whose adapter differs would compute another model.
    """
    assert 1 == len({each[case]["digest"] for each in results(launched(ranks), ranks)})


@pytest.mark.ranks
@pytest.mark.parametrize("case", [case for case in CASES if case != "packed"])
def test_mlx_lm_loads_the_adapter_into_the_whole_model(launched: Launched, case: str) -> None:
    """
    The adapter is trained on two machines and used on one, by programs without ranks.
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
def test_a_rank_holds_only_its_part_of_the_weights(launched: Launched, ranks: int) -> None:
    """
    A view of a part would keep the whole weight in memory, and the model would still not fit.
    """
    for each in results(launched(ranks), ranks):
        assert 1 / ranks == pytest.approx(each["memory"], rel=0.02)


def built(name: str, **changed: object) -> Any:
    """A model of families.CONFIGS with a changed config."""
    from mlx_lm.utils import _get_classes

    config = copy.deepcopy(families.CONFIGS[name]) | changed
    model_class, arguments = _get_classes(config)
    return model_class(arguments.from_dict(config))


def texts(model: Any, ranks: int) -> list[str]:
    """The problems as users read them."""
    from thunder_train.worker.tensor_parallel import problems

    return [str(problem) for problem in problems(model, ranks)]


@pytest.mark.mlx
@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_gemma_4_e2b_can_be_split_although_it_has_one_key_value_head(ranks: int) -> None:
    """
    The model of the seed project, built from its config alone: the check computes no weight.
    """
    import mlx.nn as nn
    from mlx_lm.utils import _get_classes

    config = json.loads(GEMMA.read_text())
    model_class, arguments = _get_classes(config)
    model = model_class(arguments.from_dict(config))
    nn.quantize(model, **config["quantization"])

    assert [] == texts(model, ranks)


@pytest.mark.mlx
def test_indivisible_heads_and_units_are_refused_with_possible_numbers_of_ranks() -> None:
    """
    Before launch, and all at once: each attempt would load the model on every machine.
    """
    expected = [
        "--strategy tensor: 8 query heads cannot be split over 3 ranks; use 2 or 4 or 8 ranks",
        "--strategy tensor: 128 MLP units cannot be split over 3 ranks; use 2 or 4 or 8 ranks",
    ]
    assert expected == texts(built("llama"), 3)


@pytest.mark.mlx
def test_key_value_heads_that_neither_split_nor_repeat_are_refused() -> None:
    """
    With 6 of them on 4 ranks, the query heads of a rank would need one and a half.
    """
    model = built("llama", num_attention_heads=12, num_key_value_heads=6, intermediate_size=144)

    expected = "6 key/value heads can neither be split over 4 ranks nor repeated on them; use 2 or 3 or 6 or 12 ranks"
    assert [f"--strategy tensor: {expected}"] == texts(model, 4)


@pytest.mark.mlx
def test_quantised_groups_are_not_cut() -> None:
    """
    A group has one scale, so half a group has no meaning.
    """
    import mlx.nn as nn

    model = built("llama", intermediate_size=64)
    nn.quantize(model, group_size=32, bits=4)

    expected = "2 quantised groups of down_proj cannot be split over 4 ranks; use 2 ranks"
    assert [f"--strategy tensor: {expected}"] == texts(model, 4)


@pytest.mark.mlx
def test_other_families_are_refused_with_the_list_of_supported_ones() -> None:
    """
    mlx-lm's own sharding silently does nothing for such a model.
    """
    listed = "gemma3, gemma3_text, gemma4, gemma4_text, llama, qwen2, qwen3"
    multipliers = ("logits_scaling", "attention_multiplier", "embedding_multiplier", "residual_multiplier")
    model = built("llama", model_type="granite", **dict.fromkeys(multipliers, 1.0))

    expected = f"a granite model cannot be split; use --strategy data, or a model of one of: {listed}"
    assert [f"--strategy tensor: {expected}"] == texts(model, 2)


@pytest.mark.mlx
def test_experts_and_dora_are_refused() -> None:
    """
    Both would be split wrongly without an error.
    """
    from mlx_lm.tuner.utils import linear_to_lora_layers

    experts = built("gemma4_31b", enable_moe_block=True, num_experts=2, top_k_experts=1, moe_intermediate_size=32)
    dora = built("llama")
    linear_to_lora_layers(dora, 1, {"rank": 2, "scale": 1.0, "dropout": 0.0}, use_dora=True)

    assert ["--strategy tensor: layers of experts cannot be split; use --strategy data"] == texts(experts, 2)
    assert ["--strategy tensor: DoRA is not supported; use LoRA"] == texts(dora, 2)


@pytest.mark.mlx
def test_a_model_that_cannot_be_split_is_not_changed() -> None:
    """
    The error comes before the first change.
    """
    from thunder_train.worker.ranks import Ranks
    from thunder_train.worker.tensor_parallel import shard

    model = adapted(CASES["llama-0"])
    with pytest.raises(ThunderError, match="8 query heads cannot be split over 3 ranks"):
        shard(model, Ranks(rank=0, size=3))

    assert 8 == model.layers[0].self_attn.n_heads
