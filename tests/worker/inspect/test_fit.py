"""The estimate of fit, against the measured needs of trainings."""

import gc
import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.families import CONFIGS, build
from tests.helpers.project_copy import PROJECT
from tests.worker.conftest import flags, inline, python, row, write_rows
from thunder_train import ThunderError
from thunder_train.worker.args import Settings, parse

pytestmark = pytest.mark.mlx

GEMMA = PROJECT / "tests/helpers/gemma-4-e2b-4bit.config.json"
LETTERS = 120
DENSE: dict[str, Any] = {
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e4,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
DENSE |= {"torch_dtype": "float32", "eos_token_id": 5, "bos_token_id": 2}
MOE: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 97,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama, wide": DENSE
    | {"model_type": "llama", "num_hidden_layers": 3, "hidden_size": 256, "intermediate_size": 700}
    | {"num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 1500},
    "qwen3, many words": DENSE
    | {"model_type": "qwen3", "num_hidden_layers": 4, "hidden_size": 96, "intermediate_size": 256, "head_dim": 32}
    | {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 12000},
    "gemma3_text, deep": DENSE
    | {"model_type": "gemma3_text", "num_hidden_layers": 12, "hidden_size": 64, "intermediate_size": 192}
    | {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "query_pre_attn_scalar": 16}
    | {"vocab_size": 440, "sliding_window": 64, "sliding_window_pattern": 6},
    "qwen3_moe, 3 of 24 experts": DENSE
    | MOE
    | {"model_type": "qwen3_moe", "num_hidden_layers": 5, "hidden_size": 96}
    | {"num_experts": 24, "num_experts_per_tok": 3, "moe_intermediate_size": 224, "vocab_size": 700},
}


def settings(**changed: object) -> Settings:
    """Settings of a short training, some of them changed."""
    return parse(flags(Path("adapter"), **changed))


def write_model(folder: Path, nano: Path, config: dict[str, Any]) -> None:
    """Write a random model with nano's tokenizer."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from thunder_train.worker import model

    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((nano / name).read_bytes())
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.build(config).parameters())))


@pytest.mark.parametrize("name", SHAPES)
def test_the_estimated_peak_is_within_a_tenth_of_the_measured_one(folder: Path, tmp_path: Path, name: str) -> None:
    """
    Users decide by it whether to buy memory; the factors of the formula were fitted to other shapes.
    """
    import mlx.core as mx

    from thunder_train.worker.inspect import fit, fit_rows

    write_model(tmp_path / "model", folder / "nano", SHAPES[name])
    for split in ("train", "valid"):
        write_rows(tmp_path / f"{split}.jsonl", [row(i, "ߊߋߌߍ" * (LETTERS // 4 - 9 * i)) for i in range(4)])
    changed = {"model": "model", "batch_size": 4, "num_iters": 1, "num_layers": 3}
    gc.collect()
    mx.clear_cache()
    mx.reset_peak_memory()
    held = mx.get_active_memory()  # by other tests
    done = inline("thunder_train.worker", flags(tmp_path / "out" / "adapter", **changed), tmp_path)
    assert 0 == done.returncode, done.stderr
    events = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    measured = 1e9 * next(each["peak_memory_gb"] for each in events if each["event"] == "train") - held
    files = {f"{split}_data": tmp_path / f"{split}.jsonl" for split in ("train", "valid")}
    chosen = settings(**{**changed, **files, "model": tmp_path / "model"})

    estimate = fit.report(SHAPES[name], chosen, 1, row_tokens=512, is_timed=False, dataset=fit_rows.read(chosen))

    tokens = json.loads((tmp_path / "out" / "adapter" / "done.json").read_text())["tokens"]["train"]
    assert (4, round(tokens / 4)) == (estimate["rows"], estimate["row_tokens"])
    assert measured == pytest.approx(estimate["bytes"]["peak"], rel=0.1)


@pytest.mark.parametrize("name", ["llama", "gemma4_e2b"])
def test_bytes_of_a_quantised_base_are_exact(name: str) -> None:
    """
    Scales and biases of 4-bit groups are an eighth of them, and embeddings count, too.
    """
    from mlx.utils import tree_flatten

    from thunder_train.worker import model
    from thunder_train.worker.inspect import memory
    from thunder_train.worker.inspect.memory import model_sizes

    config = {**CONFIGS[name], "torch_dtype": "float32", "quantization": {"bits": 4, "group_size": 32}}
    real = sum(leaf.nbytes for _, leaf in tree_flatten(build(name, bits=4).parameters()))

    assert real == memory.weight_bytes(model.build(config), model_sizes(config), parts=1)


def test_each_of_two_ranks_keeps_half_of_a_split_block() -> None:
    """
    Embeddings and norms stay whole on each rank; a single key/value head cannot be halved.
    """
    from mlx.utils import tree_flatten

    from thunder_train.worker import model
    from thunder_train.worker.inspect import memory
    from thunder_train.worker.inspect.memory import model_sizes

    config = CONFIGS["gemma3_text"] | {"torch_dtype": "float32"}
    base = model.build(config)
    halved = ("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    leaves = [(name, leaf.size * 4) for name, leaf in tree_flatten(base.parameters())]
    expected = sum(size / 2 if any(each in name for each in halved) else size for name, size in leaves)

    assert expected == memory.weight_bytes(base, model_sizes(config), parts=2)


def test_checkpointed_blocks_need_less() -> None:
    """
    fit advises grad_checkpoint for a model that does not fit, so the estimate must include it.
    """
    from thunder_train.worker.inspect import fit

    config = SHAPES["gemma3_text, deep"]
    plain, checkpointed = (
        fit.report(config, settings(num_layers=12, grad_checkpoint=value), ranks=1, row_tokens=64)["bytes"]
        for value in ("false", "true")
    )

    assert plain["activations"] > 2 * checkpointed["activations"]


def test_the_report_contains_seconds_and_the_gradient_message() -> None:
    """
    Two ranks exchange each trained number once; one block is timed, not the whole model.
    """
    from thunder_train.worker.inspect import fit

    result = fit.report(SHAPES["llama, wide"], settings(), ranks=2, row_tokens=32)

    assert 4 * (result["trainable_parameters"] + 7) == result["message_bytes"]["gradient"]
    assert 31 == result["probe_tokens"]
    assert 0 < result["seconds_per_step"] < 5


def test_a_model_that_cannot_be_split_is_refused_with_the_tensor_strategy() -> None:
    """
    Users must not learn it only when eight ranks start.
    """
    from thunder_train.worker.inspect import fit

    with pytest.raises(ThunderError, match="8 query heads cannot be split over 3 ranks"):
        fit.report(SHAPES["llama, wide"], settings(strategy="tensor"), ranks=3, row_tokens=32)


def test_seconds_grow_with_tokens_blocks_and_vocabulary() -> None:
    """
    Trained blocks run forward and backward, others only forward, checkpointed blocks forward twice and backward.
    """
    from thunder_train.worker.inspect.memory import model_sizes
    from thunder_train.worker.inspect.step_seconds import Times

    sizes, times = model_sizes(SHAPES["gemma3_text, deep"]), Times(10, 3.0, 1.0, 0.5, "cpu")

    assert 2 * (2 * 3 + 10 * 1 + 440 * 0.5) == times.seconds(sizes, settings(num_layers=2), 20, 20, parts=1)
    assert 2 * (2 * 3 + 10 * 1) + 440 * 0.5 == times.seconds(sizes, settings(num_layers=2), 20, targets=10, parts=1)
    assert 2 * 3 + 6 * 1 + 440 * 0.5 == times.seconds(sizes, settings(num_layers=2), 10, 10, parts=1, kept=4)
    checkpointed = settings(num_layers=2, grad_checkpoint="true")
    assert 2 * 3 + 10 * 1 + 2 * 1 + 440 * 0.5 == times.seconds(sizes, checkpointed, 10, 10, parts=1)


def test_a_probe_that_would_take_minutes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A block of many 4-bit weights takes seconds for one token on a CPU of Linux, and fit answers in a minute at most.
    """
    from thunder_train.worker.inspect import fit, step_seconds

    monkeypatch.setattr(step_seconds, "_fastest", lambda run, repeats: 12.0)
    result = fit.report(SHAPES["llama, wide"], settings(), ranks=1, row_tokens=32)

    one = "one token took 12 s forward through one block of 3"
    assert f"the probe of one step would take longer than 60 s: {one}" == result["not_measured"]
    assert (None, None, "") == (result["seconds_per_step"], result["device"], result["slow"])


@pytest.mark.parametrize(
    ("factor", "expected"), [(50, ("MLX multiplies 4-bit weights row by row on a CPU", 0)), (1, ("", None))]
)
def test_weights_that_a_cpu_is_slow_at_are_compared_with_float32(
    monkeypatch: pytest.MonkeyPatch, factor: int, expected: tuple[str, int | None]
) -> None:
    """
    MLX multiplies packed weights row by row on a CPU: the same model in float32 takes a fiftieth of the time.
    """
    from thunder_train.worker.inspect import fit, step_seconds

    def measured(config: dict[str, Any], *_: object) -> step_seconds.Times:
        return step_seconds.Times(31, *([1.0 * factor if "quantization" in config else 1.0] * 3), "cpu")

    monkeypatch.setattr(step_seconds, "measure", measured)
    monkeypatch.setattr(step_seconds, "is_on_cpu", lambda: True)
    packed = SHAPES["llama, wide"] | {"quantization": {"bits": 4, "group_size": 32}}
    result = fit.report(packed, settings(), ranks=1, row_tokens=32)

    plain = result["seconds_in_float32"]
    assert expected == (result["slow"], plain and 0)
    assert plain is None or factor * plain == pytest.approx(result["seconds_per_step"])
    assert "" == fit.report(SHAPES["llama, wide"], settings(), ranks=1, row_tokens=32)["slow"]


def test_rows_that_are_not_there_are_taken_as_long_as_they_may_be(tmp_path: Path, folder: Path) -> None:
    """
    fit comes before every other stage. A file that would take minutes to tokenise is not read for an estimate either.
    """
    from thunder_train.worker.inspect import fit

    given = ["--config", str(folder / "nano/config.json"), "--ranks", "1", "--memory-only", "--output", "fit.json"]
    chosen = flags(Path("adapter"), model=folder / "nano", max_seq_len=77, num_iters=9)
    fit.main([*chosen, *given[:-1], str(tmp_path / "fit.json")])
    report = json.loads((tmp_path / "fit.json").read_text())

    assert (77, None, None) == (report["row_tokens"], report["rows"], report["kept"])
    assert "train.jsonl: is not built" == report["rows_unknown"]


def test_a_large_file_of_rows_is_read_if_it_was_tokenised_before(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    fit answers in seconds; 1,000,000 rows take minutes.
    """
    from thunder_train.worker.inspect import fit_rows

    files = {f"{split}_data": tmp_path / f"{split}.jsonl" for split in ("train", "valid")}
    for path in files.values():
        write_rows(path, [row(i, "ߊߋߌߍ") for i in range(3)])
    chosen = settings(model=folder / "nano", token_cache=tmp_path / "cache", **files)
    whole = fit_rows.read(chosen)
    monkeypatch.setattr(fit_rows, "MOST_BYTES", 10)
    assert whole == fit_rows.read(chosen)
    write_rows(files["train_data"], [row(9, "ߊ") for i in range(3)])

    with pytest.raises(ThunderError, match=r"train\.jsonl: has 0 MB that were not tokenised before"):
        fit_rows.read(chosen)


def test_the_size_of_what_frozen_layers_keep_is_that_of_the_training(tmp_path: Path, folder: Path) -> None:
    """
    It may be larger than the model, so it is told before the launch.
    """
    from thunder_train.worker import frozen_prefix, model
    from thunder_train.worker.inspect import fit, fit_rows

    files = {f"{split}_data": tmp_path / f"{split}.jsonl" for split in ("train", "valid")}
    for path in files.values():
        write_rows(path, [row(i, "ߊߋߌߍ" * (1 + i)) for i in range(4)])
    config = json.loads((folder / "nano/config.json").read_text())

    def kept(**changed: object) -> Any:
        chosen = settings(model=folder / "nano", batch_size=2, **files, **changed)
        return fit.report(config, chosen, 1, 512, is_timed=False, dataset=fit_rows.read(chosen))["kept"]

    network, _ = model.load(str(folder / "nano"), "")
    model.add_lora(network, model.Lora(num_layers=1, rank=4), seed=0)
    layers = frozen_prefix.depth(network)
    size = frozen_prefix.token_bytes(network, layers) * fit_rows.read(settings(model=folder / "nano", **files)).tokens

    expected = {"layers": layers, "bytes": size, "in_memory": True, "why_not": ""}
    assert expected == kept(num_layers=1, num_iters=4)
    assert "rows are read less than twice" == kept(num_layers=1, num_iters=3)["why_not"]


def test_layers_that_are_stored_unpacked_are_counted_as_they_are(tmp_path: Path) -> None:
    """
    mlx-lm loads a packed model whose embedding is not packed, which its config.json does not say.
    """
    import mlx.core as mx

    from thunder_train.worker import model
    from thunder_train.worker.inspect import memory
    from thunder_train.worker.inspect.fit import as_stored

    config = {**CONFIGS["llama"], "torch_dtype": "float32", "quantization": {"bits": 4, "group_size": 32}}
    names = ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.scales")
    mx.save_safetensors(str(tmp_path / "model.safetensors"), {name: mx.zeros(1) for name in names})

    stored = as_stored(config, tmp_path)
    packed, partly = (
        memory.weight_bytes(model.build(each), memory.model_sizes(each), parts=1) for each in (config, stored)
    )

    words, width = config["vocab_size"], config["hidden_size"]
    assert {"bits": 4, "group_size": 32, "model.embed_tokens": False} == stored["quantization"]
    assert (
        words * width * 4 - words * width * 5 // 8 - words * (width // 32) * 0 == partly - packed + words * width // 8
    )
    assert {**CONFIGS["llama"], "torch_dtype": "float32"} == as_stored(
        {**CONFIGS["llama"], "torch_dtype": "float16"}, tmp_path
    )
    assert config == as_stored(config, tmp_path / "away")


def test_advice_names_the_strategy_that_fits() -> None:
    """
    The data strategy is faster if the model fits.
    """
    from thunder_train.worker.inspect.fit import advice

    assert advice({"data": 10**9, "tensor": 10**8}, []).startswith("data: ")
    assert advice({"data": 20 * 10**9, "tensor": 10**10}, []).startswith("tensor: ")
    expected = "does not fit a 16 GB Mac with the data strategy (3 heads): lower micro_tokens or max_seq_len, "
    assert advice({"data": 20 * 10**9}, ["3 heads"]).startswith(expected)


def test_a_config_without_sizes_is_refused() -> None:
    """
    A recurrent model has other sizes, and the formula would be wrong for it.
    """
    from thunder_train.worker.inspect.memory import model_sizes

    with pytest.raises(ThunderError) as caught:
        model_sizes({"num_hidden_layers": 2})

    hint = "fit supports transformers with and without experts only; use the config.json of one"
    assert f"--config: has no usable 'num_attention_heads'; {hint}" == str(caught.value)


def test_an_unknown_weight_type_is_named() -> None:
    """
    Assuming four bytes for float8 would be wrong by a factor of four.
    """
    from thunder_train.worker.inspect.memory import model_sizes

    with pytest.raises(ThunderError, match="has no usable 'float8'"):
        model_sizes(SHAPES["llama, wide"] | {"torch_dtype": "float8"})


def test_the_estimate_is_for_the_rank_that_takes_most_rows() -> None:
    """
    A rank that is three times as fast takes six of eight rows, and needs memory for six.
    """
    from thunder_train.worker.inspect import fit

    def rows(**changed: object) -> int:
        chosen = settings(batch_size=4, **changed)
        result = fit.report(SHAPES["llama, wide"], chosen, ranks=2, row_tokens=100)
        return sum(each["sequences"] for each in result["passes"])

    assert (4, 6) == (rows(), rows(weights="3,1"))


def test_each_rank_has_the_peak_of_its_own_rows() -> None:
    """
    A small machine takes few rows so that they fit. Ranks that share each block need the same.
    """
    from thunder_train.worker.inspect import fit

    def peaks(**changed: object) -> list[int]:
        chosen = settings(batch_size=4, packing="never", **changed)
        result: list[int] = fit.report(SHAPES["llama, wide"], chosen, 2, 100, is_timed=False)["rank_peak_bytes"]
        return result

    equal, weighted, split = peaks(), peaks(weights="3,1"), peaks(strategy="tensor")
    assert 1 == len({*equal}) == len({*split})
    assert 2 == len(equal) == len(split)
    assert weighted[0] > equal[0] > weighted[1]


def test_gemma_4_e2b_trains_1703936_parameters() -> None:
    """
    The first Thunder Train reported 15,877,411: it had not frozen the base.
    """
    from thunder_train.worker.inspect import fit

    chosen = settings(num_layers=4, lora_rank=8)
    result = fit.report(json.loads(GEMMA.read_text()), chosen, ranks=1, row_tokens=32, is_timed=False)

    assert (4_628_569_344, 1_703_936) == (result["parameters"], result["trainable_parameters"])


def test_counting_from_the_config_agrees_with_the_loaded_model(folder: Path) -> None:
    """
    The number of parameters is the same before and after a training.
    """
    from thunder_train.worker import model
    from thunder_train.worker.inspect import fit

    config = json.loads((folder / "nano/config.json").read_text())
    loaded, _ = model.load(str(folder / "nano"), "")
    total = model.parameters(loaded)
    model.add_lora(loaded, model.Lora(num_layers=1, rank=4), seed=0)
    result = fit.report(config, settings(num_layers=1, lora_rank=4), ranks=1, row_tokens=32, is_timed=False)

    assert (total, model.trainable_parameters(loaded)) == (result["parameters"], result["trainable_parameters"])


def test_check_refuses_a_model_that_the_ranks_cannot_split(tmp_path: Path) -> None:
    """
    The pipeline imports no mlx, so it runs this program before any rank starts.
    """
    program, chosen = "thunder_train.worker.inspect.fit", flags(Path("adapter"), strategy="tensor")
    given = ["--config", str(GEMMA), "--check", *chosen]
    done, refused = (python(program, [*given, "--ranks", ranks], tmp_path) for ranks in ("2", "3"))

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    assert (2, "") == (refused.returncode, refused.stdout)
    expected = "--strategy tensor: 8 query heads cannot be split over 3 ranks; use 2 or 4 or 8 ranks"
    assert refused.stderr.startswith(expected)


def test_check_names_each_layer_that_cannot_get_the_adapter(tmp_path: Path) -> None:
    """
    Otherwise the ranks would find out one after another, with the whole model in memory.
    """
    config = {**DENSE, "model_type": "qwen3_moe", **MOE}
    (tmp_path / "config.json").write_text(json.dumps(config))
    chosen = flags(Path("adapter"), fine_tune_type="dora", lora_keys="mlp.switch_mlp.up_proj,self_attn.qproj")

    done = inline(
        "thunder_train.worker.inspect.fit", [*chosen, "--config", "config.json", "--check", "--ranks", "1"], tmp_path
    )

    keys = '["mlp.gate", "self_attn.k_proj", "self_attn.o_proj", "self_attn.q_proj", "self_attn.v_proj"]'
    assert [
        "--lora-keys: no layer is called 'self_attn.qproj'; did you mean 'self_attn.q_proj'?",
        "--fine-tune-type: DoRA is not supported on layers of experts, as mlp.switch_mlp.up_proj; "
        f'set fine_tune_type = "lora", or lora_keys = {keys}',
    ] == done.stderr.splitlines()


def test_a_training_whose_memory_nobody_knows_is_no_problem(tmp_path: Path) -> None:
    """
    A preflight asks for the memory alone. A wrong key is a problem for such a model, too.
    """
    config = {"model_type": "gpt2", "n_ctx": 64, "n_embd": 32, "n_head": 2, "n_layer": 2, "n_positions": 64}
    config |= {"layer_norm_epsilon": 1e-5, "vocab_size": 97}
    (tmp_path / "config.json").write_text(json.dumps(config))
    given = ["--config", "config.json", "--ranks", "1", "--memory-only", "--output", "fit.json"]
    program = "thunder_train.worker.inspect.fit"

    done = inline(program, [*flags(Path("adapter")), *given], tmp_path)
    refused = inline(program, [*flags(Path("adapter"), lora_keys="x"), *given], tmp_path)

    assert (0, []) == (done.returncode, json.loads((tmp_path / "fit.json").read_text())["rank_peak_bytes"])
    assert done.stderr.startswith("memory is not estimated: --config: has no usable 'num_attention_heads'; ")
    assert refused.stderr.startswith("--lora-keys: no layer is called 'x'; ")
