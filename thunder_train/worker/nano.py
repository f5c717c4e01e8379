"""Generates a small Gemma-like base model with random weights, for tests and first runs without a download.

The same arguments give the same bytes on every machine.

Writes an mlx-lm folder: config.json, generation_config.json, model.safetensors, tokenizer.json, tokenizer_config.json.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.core import files
from thunder_train.worker.args import Parser
from thunder_train.worker.bootstrap import enter

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
END_OF_TURN = SPECIAL.index("<end_of_turn>")
PUNCTUATION = "،؛؟«»“”‘’–—…ʔ"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n'"
    " + message['content'] + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """Sizes. layers: blocks; width: of the residual stream; heads, kv_heads: of attention; hidden: units of an MLP."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    hidden: int


def write(folder: Path, shape: Shape, seed: int) -> None:
    """Write the model folder. The same shape and seed give the same bytes. Raises ThunderError on a bad shape."""
    check(shape)
    vocabulary = characters()
    config = gemma_config(shape, len(vocabulary))
    files.write_bytes(folder / "model.safetensors", weights(config, seed))
    files.write_json(folder / "tokenizer.json", tokenizer(vocabulary))
    files.write_json(folder / "tokenizer_config.json", tokenizer_config())
    files.write_json(
        folder / "generation_config.json", {"eos_token_id": END_OF_TURN, "bos_token_id": 2, "pad_token_id": 0}
    )
    files.write_json(folder / "config.json", config)


def check(shape: Shape) -> None:
    """Raise ThunderError with every problem of a shape."""
    problems = [
        ThunderError(f"must be 1 or more, not {value}", where=f"--{name.replace('_', '-')}")
        for name, value in vars(shape).items()
        if value < 1
    ]
    raise_all(problems)
    if shape.width % (2 * shape.heads):
        problems.append(ThunderError(f"must be a multiple of 2 x {shape.heads} heads, not {shape.width}", "--width"))
    if shape.heads % shape.kv_heads:
        problems.append(ThunderError(f"must divide {shape.heads} heads, not {shape.kv_heads}", "--kv-heads"))
    raise_all(problems)


def characters() -> list[str]:
    """The vocabulary in order of id: special tokens, 256 bytes for other characters, then one token per character."""
    nko = [chr(code) for code in range(0x7C0, 0x800)]
    ascii_letters = ["\t", "\n", *(chr(code) for code in range(0x20, 0x7F))]
    return [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *nko, *ascii_letters, *PUNCTUATION]


def gemma_config(shape: Shape, vocabulary: int) -> dict[str, Any]:
    """config.json of a gemma3_text model. vocabulary: number of tokens."""
    head = shape.width // shape.heads
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "bos_token_id": 2,
        "eos_token_id": END_OF_TURN,
        "head_dim": head,
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "max_position_embeddings": 2048,
        "model_type": "gemma3_text",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "pad_token_id": 0,
        "query_pre_attn_scalar": head,
        "rms_norm_eps": 1e-6,
        "sliding_window": 512,
        "sliding_window_pattern": min(6, shape.layers),  # every sixth layer has global attention, as in Gemma 3
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "vocab_size": vocabulary,
    }


def weights(config: dict[str, Any], seed: int) -> bytes:
    """Random weights as safetensors bytes: matrices uniform with variance 1 / inputs, norms zero.

    Gemma multiplies by 1 + the norm's weight, so zero is neutral.
    """
    from mlx.utils import tree_flatten
    from mlx_lm.models import gemma3_text
    from safetensors.numpy import save

    model = gemma3_text.Model(gemma3_text.ModelArgs.from_dict(config))
    model.sanitize({})  # without lm_head in the weights, mlx-lm ties the output layer to the embedding
    shapes = sorted((name, tuple(leaf.shape)) for name, leaf in tree_flatten(model.parameters()))
    return save({name: draw(f"{seed}:{name}", shape) for name, shape in shapes})


def draw(key: str, shape: tuple[int, ...]) -> Any:
    """Random float32 array that depends on the key alone; zeros if it has one dimension.

    The bits come from SHAKE-256 and not from a library's generator, which a new release could change.
    """
    import numpy as np

    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    # The upper 24 bits of each word: float32 holds them exactly, so no rounding depends on the machine.
    bits = np.frombuffer(hashlib.shake_256(key.encode()).digest(4 * math.prod(shape)), "<u4") >> 8
    centred = bits.astype(np.float32) * np.float32(2**-23) - np.float32(1)  # uniform in [-1, 1), variance 1/3
    return (centred * np.float32(math.sqrt(3 / shape[-1]))).reshape(shape)


def tokenizer(vocabulary: list[str]) -> dict[str, Any]:
    """tokenizer.json: BPE without merges, so one token per character; other characters become bytes."""
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": token, **added} for i, token in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(vocabulary)},
            "merges": [],
        },
    }


def tokenizer_config() -> dict[str, Any]:
    """tokenizer_config.json with Gemma's chat template, except that the system message is a separate turn."""
    return {
        "add_bos_token": False,
        "bos_token": "<bos>",
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<end_of_turn>",
        "model_max_length": 2048,
        "pad_token": "<pad>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
    }


def main(argv: list[str]) -> None:
    """Write the model that the flags describe."""
    parser = Parser(prog="thunder_train.worker.nano", description="make a small Gemma-like base model")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--layers", type=int, default=6, help="transformer blocks")
    parser.add_argument("--width", type=int, default=64, help="size of the residual stream")
    parser.add_argument("--heads", type=int, default=4, help="attention heads")
    parser.add_argument("--kv-heads", type=int, default=1, help="key and value heads")
    parser.add_argument("--hidden", type=int, default=128, help="width inside the MLP")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights")
    flags = parser.parse_args(argv)
    write(flags.output, Shape(flags.layers, flags.width, flags.heads, flags.kv_heads, flags.hidden), flags.seed)


if __name__ == "__main__":
    enter(main)
