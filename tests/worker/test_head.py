"""The loss of targets in blocks: equal to that of all logits for every family, packing and kind of output layer."""

import itertools
from typing import Any

import numpy as np
import pytest

from tests.helpers import families

pytestmark = pytest.mark.mlx

WORDS = families.VOCABULARY
OTHERS = {
    "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-5, "layer_norm_eps": 1e-5, "norm_eps": 1e-5,
    "layer_norm_epsilon": 1e-5, "norm_epsilon": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 512,
    "original_max_position_embeddings": 512, "vocab_size": WORDS, "attention_bias": False, "mlp_bias": False,
    "hidden_act": "silu", "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64, "decoder_sparse_step": 1,
    "mlp_only_layers": [], "norm_topk_prob": True, "logit_scale": 0.5, "sliding_window": 6,
    "sliding_window_pattern": 2, "layer_types": ["sliding_attention", "full_attention"],
    "final_logit_softcapping": 3.0, "attn_logit_softcapping": 50.0, "query_pre_attn_scalar": 16,
    "logits_scaling": 2.0, "embedding_multiplier": 1.0, "attention_multiplier": 0.25, "residual_multiplier": 1.0,
    "partial_rotary_factor": 0.5, "use_qkv_bias": False, "use_bias": True, "bias": False, "q_lora_rank": None,
    "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16, "n_shared_experts": 1,
    "n_group": 1, "topk_group": 1, "moe_layer_freq": 1, "first_k_dense_replace": 1, "routed_scaling_factor": 1.0,
    "no_rope_layers": [1, 1], "no_rope_layer_interval": 2, "use_qk_norm": False, "attention_dropout": 0.0,
    "rope_scaling": None, "rotary_pct": 0.25, "rope_pct": 0.25, "use_parallel_residual": True, "use_cache": True,
    "use_sliding_window": False, "pad_token_id": 0, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"},
}  # fmt: skip
"""What the config.json of any family may ask for; soft caps and scales of logits are strong enough to matter."""


def build(family: str, is_tied: bool) -> Any:
    """A tiny random model with an adapter on its last block."""
    import mlx.core as mx
    import mlx_lm.utils
    from mlx.utils import tree_map

    from thunder_train.worker.model import Lora, add_lora

    mx.disable_compile()
    config = {**OTHERS, "model_type": family, "tie_word_embeddings": is_tied}
    kind, arguments = mlx_lm.utils._get_classes(config)
    model = kind(arguments.from_dict(config))
    mx.random.seed(0)
    model.update(tree_map(lambda leaf: mx.random.normal(leaf.shape) * 0.1, model.parameters()))
    add_lora(model, Lora(1, 4), seed=0)
    return model


def rows() -> tuple[Any, Any, Any]:
    """(3, 20) tokens, positions of 24 targets among them, and the targets."""
    import mlx.core as mx

    numbers = np.random.default_rng(0)
    tokens = numbers.integers(0, WORDS, (3, 20))
    positions = np.sort(numbers.permutation(60)[:24])
    return mx.array(tokens), mx.array(positions), mx.array(numbers.integers(0, WORDS, 24))


def in_one(model: Any) -> Any:
    """Loss sum of `rows` by mlx-lm's forward pass and MLX's cross-entropy."""
    import mlx.core as mx
    import mlx.nn as nn

    tokens, positions, labels = rows()
    logits = model(tokens).astype(mx.float32)
    return nn.losses.cross_entropy(logits.reshape(-1, logits.shape[-1])[positions], labels, reduction="sum")


def in_blocks(model: Any) -> Any:
    """The same by the head."""
    from thunder_train.worker import head

    tokens, positions, labels = rows()
    top = head.of(model)
    assert top is not None
    states = top.hidden(tokens, None)
    return top.loss_sum(states.reshape(-1, states.shape[-1])[positions], labels)


def differences(model: Any) -> tuple[float, float]:
    """Relative differences of loss and gradient."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten

    results = []
    for loss in (in_one, in_blocks):
        value, gradient = nn.value_and_grad(model, loss)(model)
        leaves = [leaf.reshape(-1) for _, leaf in sorted(tree_flatten(gradient))]
        results.append((value.item(), mx.concatenate(leaves)))
    (loss, right), (other, gradient) = results
    return abs(loss - other) / loss, (mx.linalg.norm(gradient - right) / mx.linalg.norm(right)).item()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 10 targets and 50 words, so that a test has several of both."""
    from thunder_train.worker import head

    monkeypatch.setattr(head, "BLOCK", 500)
    monkeypatch.setattr(head, "ROWS", 10)


@pytest.mark.parametrize("bits", [0, 4])
@pytest.mark.parametrize("name", families.CONFIGS)
def test_blocks_give_the_loss_and_gradient_of_all_logits(name: str, bits: int, small_blocks: None) -> None:
    """
    Wrappers, tied and packed output layers: a wrong gradient would train, only worse.
    """
    from thunder_train.worker.model import Lora, add_lora

    model = families.build(name, bits)
    add_lora(model, Lora(2, 4), seed=0)

    assert max(differences(model)) < 2e-6


def test_every_listed_family_has_the_loss_of_its_own_logits(small_blocks: None) -> None:
    """
    Soft caps (Gemma 2), scales (Cohere, Granite) and biases (Phi) come between the output layer and the loss.
    """
    from thunder_train.worker import head

    wrong = {}
    for family, is_tied in itertools.product(
        sorted(set(head.FAMILIES) - set(families.CONFIGS) - {"gemma4_text"}), (True, False)
    ):
        worst = max(differences(build(family, is_tied)))
        if not worst < 1e-5:
            wrong[family, is_tied] = worst
    assert {} == wrong


def test_a_trained_output_layer_gets_its_gradient_too(small_blocks: None) -> None:
    """
    LoRA on lm_head: each logit depends on trained numbers, which the blocks must not treat as constant.
    """
    from mlx_lm.tuner.lora import LoRALinear

    model = families.build("qwen3", 0)
    model.freeze()
    model.lm_head = LoRALinear.from_base(model.lm_head, r=4)
    model.lm_head.lora_b = model.lm_head.lora_b + 0.1

    assert max(differences(model)) < 2e-6


def test_a_whole_trained_model_gets_the_gradient_of_both_uses_of_its_embedding(small_blocks: None) -> None:
    """
    A tied embedding is read at the bottom and at the top; pretraining updates it from both.
    """
    model = families.build("llama", 0)
    model.unfreeze()

    assert max(differences(model)) < 2e-6


def test_an_evaluation_has_the_loss_of_a_training(small_blocks: None) -> None:
    """
    Without a gradient half of the products are left out; the loss must not change.
    """
    model = build("gemma2", is_tied=True)
    training = in_blocks(model).item()
    model.eval()

    assert pytest.approx(training, rel=1e-6) == in_blocks(model).item()


def test_a_family_without_a_test_is_left_alone() -> None:
    """
    Its logits are computed as a whole: slow is better than wrong.
    """
    import mlx.nn as nn

    from thunder_train.worker import head

    assert head.of(nn.Sequential(nn.Linear(2, 2))) is None


def test_the_output_layer_needs_a_few_megabytes() -> None:
    """
    All logits of these targets take 268 MB in float32, and a training held five such arrays.
    """
    import mlx.core as mx

    from thunder_train.worker import head

    weights = head.Weights(mx.random.normal((65_536, 32)))
    states, labels = mx.random.normal((1024, 32)), mx.zeros(1024, mx.int32)
    mx.eval(weights.weight, states, labels)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(mx.value_and_grad(lambda each: head._frozen(each, labels, weights, lambda raw: raw))(states))

    assert mx.get_peak_memory() - before < 32e6
