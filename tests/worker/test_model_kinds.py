"""Base models as users have them: every packing of mlx-lm, experts, and Hugging Face folders that nobody converted.

Each is locked, estimated, trained for two steps, resumed, loaded by mlx-lm and evaluated.
"""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import model_folders
from tests.worker.conftest import TEXTS, flags, row, write_rows
from thunder_train import ThunderError, models
from thunder_train.core import files, model_files

pytestmark = pytest.mark.mlx

Make = Callable[[Path], Path]


def mixed(path: str, _: Any) -> Any:
    """Layers of 4, 6 and 8 bits, and one that is not packed, as mlx_lm.convert --quant-predicate makes them."""
    if "v_proj" in path or "lm_head" in path:
        return {"bits": 6, "group_size": 32}
    return {"bits": 8, "group_size": 64} if "down_proj" in path else "gate_proj" not in path


def packed(family: str, predicate: Any = None, torch_dtype: str = "float32", **how: Any) -> Make:
    """Makes a folder of packed weights."""
    made = {"quantized": how, "predicate": predicate, "torch_dtype": torch_dtype}
    return lambda folder: model_folders.make(folder, family, **made)


def plain(family: str, **how: Any) -> Make:
    """Makes a folder of weights that are not packed."""
    return lambda folder: model_folders.make(folder, family, **how)


def by_mode(mode: str) -> dict[str, Any]:
    """A mode of MLX with its own bits and group size."""
    return {"mode": mode, "bits": None, "group_size": None}


KINDS: dict[str, Make] = {
    **{f"{bits} bits": packed("llama", bits=bits) for bits in (2, 3, 4, 5, 6, 8)},
    **{mode: packed("llama", **by_mode(mode)) for mode in ("mxfp4", "nvfp4", "mxfp8")},
    "mixed": packed("llama", mixed),
    "experts": plain("qwen3_moe"),
    "experts, 4 bits": packed("mixtral", bits=4),
    "experts, mxfp4": packed("gpt_oss", lambda path, _: "experts" in path, **by_mode("mxfp4")),
    "experts, 4 and 16 bits": packed("qwen3_moe", bits=4, torch_dtype="bfloat16"),
    "Hugging Face, 16 bits": plain("llama", as_hugging_face=True, torch_dtype="bfloat16"),
    "Hugging Face, tied": plain("llama", as_hugging_face=True, tie_word_embeddings=True),
    "Hugging Face, three files": plain("qwen3", as_hugging_face=True, shards=3),
    "Hugging Face, experts": plain("mixtral", as_hugging_face=True, shards=2),
    "Hugging Face, code elsewhere": plain("llama", as_hugging_face=True, auto_map={"AutoModelForCausalLM": "m.X"}),
}
"""How a folder of each kind is made."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl and valid.jsonl."""
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder / "train.jsonl", [row(number, text) for number, text in enumerate(TEXTS)])
    write_rows(folder / "valid.jsonl", [row(number, text) for number, text in enumerate(TEXTS[:3])])
    return folder


def settings(place: Path, base: Path, rows: Path, **changed: object) -> Any:
    """The settings of a training of two steps, with a checkpoint after each."""
    from thunder_train.worker import args

    data = {"train_data": rows / "train.jsonl", "valid_data": rows / "valid.jsonl"}
    every = {"num_iters": 2, "eval_every": 1, "save_every": 1, "max_seq_len": 128}
    return args.parse(flags(place / "adapter", model=base, **data, **every, **changed))


def train(chosen: Any) -> str:
    """Train, or go on from a checkpoint; the digest of the last adapter."""
    from thunder_train.worker import adapter, model
    from thunder_train.worker.ranks import Ranks
    from thunder_train.worker.train import loop, result, setup

    ready = setup.prepare(chosen, Ranks(0, 1))
    run, last = setup.assemble(chosen, ready, lambda step: None, lambda: False, None)
    state = loop.start(run, last)
    loop.train(run, state)
    result.write(chosen, ready, run, state, {})
    return adapter.tensor_digest(model.adapter_tensors(run.model))


@pytest.mark.parametrize("kind", [*KINDS, pytest.param("AWQ", marks=pytest.mark.slow)])  # float16 on a CPU
def test_a_model_of_any_kind_is_trained_resumed_loaded_and_evaluated(
    tmp_path: Path, rows: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Nobody converts a model again for this program if mlx-lm reads it.
    """
    import mlx_lm

    from thunder_train.worker import evaluate_args, evaluation
    from thunder_train.worker.inspect import fit
    from thunder_train.worker.ranks import Ranks

    base = KINDS.get(kind, model_folders.make_awq)(tmp_path / "base")
    chosen = settings(tmp_path, base, rows)

    assert [] == models.problems(base, "base")
    estimate = fit.report(model_files.config(base / "config.json"), chosen, 1, 64, is_timed=False)
    whole = train(chosen)
    (tmp_path / "checkpoints/0000002.safetensors").unlink()
    assert whole == train(chosen)
    assert 1 == capsys.readouterr().out.count("goes on from here")
    done = files.read_json(tmp_path / "adapter/done.json")
    assert done["trainable_parameters"] == estimate["trainable_parameters"]
    losses = dict(done["losses"]["valid"])
    assert losses[2] < losses[0]
    mlx_lm.load(str(base), adapter_path=str(tmp_path / "adapter"))
    argv = ["--model", base, "--adapter-path", tmp_path / "adapter", "--valid-data", rows / "valid.jsonl"]
    argv += ["--test-data", rows / "valid.jsonl", "--max-tokens", 4, "--predictions", "p", "--losses", "l"]
    task = evaluate_args.parse([*map(str, argv)])
    measured, answers = evaluation.evaluate(task, tmp_path / "adapter", Ranks(0, 1), lambda: None)
    assert (3, 3) == (len(answers["base"]), len(answers["adapter"]))
    assert abs(measured["adapter"]["valid"]["loss"] - losses[2]) < 5e-3  # a batch of 16 bits rounds by its layout
    assert abs(measured["base"]["valid"]["loss"] - losses[0]) < 5e-3


def test_a_mixed_base_gets_dora_where_it_can(tmp_path: Path, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    One layer of 6 bits must not keep the others from it.
    """
    base = KINDS["mixed"](tmp_path / "base")
    keys = {"fine_tune_type": "dora", "lora_keys": "self_attn.q_proj,mlp.down_proj"}

    with pytest.raises(ThunderError, match="DoRA is not supported on layers of 6 bits, as self_attn"):
        train(settings(tmp_path, base, rows, fine_tune_type="dora"))
    train(settings(tmp_path, base, rows, **keys))

    assert "dora" == files.read_json(tmp_path / "adapter/adapter_config.json")["fine_tune_type"]
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"quant_method": "gptq", "bits": 4}, "by 'gptq', {which}"),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            "by 'bitsandbytes', {which}",
        ),
        ({"quant_method": "awq", "bits": 8}, "by 'awq' of 8 bits, version 'gemm', {which}"),
        ({"quant_method": "fp8", "fmt": "e4m3"}, "by 'fp8', {which} for a model of its type"),
        (
            {"quant_method": "compressed-tensors", "format": "float-quantized"},
            "by 'compressed-tensors' in the format 'float-quantized', {which}",
        ),
    ],
)
def test_weights_that_mlx_lm_does_not_read_are_one_sentence(tmp_path: Path, settings: Any, what: str) -> None:
    """
    Some of them would load as noise, others end in a list of a thousand names.
    """
    base = model_folders.make(tmp_path / "base", "llama", quantization_config=settings)

    (problem,) = models.problems(base, "base")

    which = f"which mlx-lm {version('mlx-lm')} does not read"
    assert str(problem).startswith(f"base: its weights are packed {what.format(which=which)}")
    assert str(problem).endswith(
        "use the model with its weights unpacked, or one that mlx-lm packed, as mlx-community has many"
    )


def test_experts_in_nvfp4_need_a_gpu(tmp_path: Path, rows: Path) -> None:
    """
    MLX would say so in the middle of the first pass.
    """
    base = packed("qwen3_moe", **by_mode("nvfp4"), global_scale=True)(tmp_path / "base")

    with pytest.raises(ThunderError, match="which MLX computes on a GPU only; use another packing"):
        train(settings(tmp_path, base, rows))


def test_experts_of_16_bits_need_a_gpu(tmp_path: Path, rows: Path) -> None:
    """
    As Hugging Face has them; packed ones are computed on a CPU too.
    """
    base = model_folders.make(tmp_path / "base", "qwen3_moe", as_hugging_face=True, torch_dtype="bfloat16")

    with pytest.raises(ThunderError) as caught:
        train(settings(tmp_path, base, rows))

    what = "has experts in bfloat16, which MLX computes on a GPU only"
    hint = "convert it with `mlx_lm.convert --dtype float32`, or pack it with -q"
    assert f"--model {base}: {what}; {hint}" == str(caught.value)


def test_layers_that_mlx_lm_reads_itself_get_no_adapter(tmp_path: Path, rows: Path) -> None:
    """
    In Gemma 3n it asks two layers for their weights, and an adapter around them has none.
    """
    train(settings(tmp_path, model_folders.make(tmp_path / "base", "gemma3n"), rows))

    keys = files.read_json(tmp_path / "adapter/adapter_config.json")["lora_parameters"]["keys"]
    assert "altup.modality_router" in keys
    assert {"altup.prediction_coefs", "altup.correction_coefs"}.isdisjoint(keys)


def test_a_training_by_hand_is_told_the_same(tmp_path: Path, rows: Path) -> None:
    """
    Without a stage before it no lock was made.
    """
    base = model_folders.make(tmp_path / "base", "llama")
    config = json.loads((base / "config.json").read_text()) | {"model_type": "llama9"}
    (base / "config.json").write_text(json.dumps(config))

    with pytest.raises(ThunderError) as caught:
        train(settings(tmp_path, base, rows))

    what = f"mlx-lm {version('mlx-lm')} has no model_type 'llama9'; it has llama, llama4"
    assert str(caught.value).startswith(f"--model {base}: {what}")
