"""The files of a base model's folder, which comes from anyone: each is read through a schema with bounds, or refused.

Input: a folder, or a config.json.  Output: its values, or a ThunderError with file and key. Keys that neither this
project nor mlx-lm needs are ignored. Nothing here changes a number: a file is read as it is or not at all.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from thunder_train import ThunderError, raise_all
from thunder_train.core import supported_models
from thunder_train.core.text import quoted

SMALL_LIMIT = 16 * 2**20
"""Most bytes of a file of settings. The largest index of weights known, of DeepSeek-V3, has 9 MiB."""
TOKENIZER_LIMIT = 2**28
"""Most bytes of a tokenizer.json or another vocabulary. Gemma's, one of the largest, has 33 MiB."""
DEEPEST = 32
"""Most levels of lists and tables."""
LARGE = (".safetensors",)
VOCABULARIES = ("tokenizer.json", "vocab.json", ".model", ".txt")
CODE = ("auto_map", "model_file")
"""Keys that name a Python file of the folder: transformers or mlx-lm would run it if they were asked to trust it."""
AGAIN = "download the model again, or correct the file"

Word = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,99}\\Z")]
"""A part of the name of a module that mlx-lm imports: no dot, so it stays in mlx-lm's own package."""
Layers = Annotated[int, Meta(ge=1, le=2000)]
Heads = Annotated[int, Meta(ge=0, le=2**16)]
Size = Annotated[int, Meta(ge=0, le=2**24)]
Token = Annotated[int, Meta(ge=-1, le=2**31)]
Tokens = Token | Annotated[list[Token], Meta(max_length=1000)] | None
Text = Annotated[str, Meta(max_length=2**20)]


class Quantization(msgspec.Struct):
    """How the weights, or those of one layer, are packed."""

    group_size: Annotated[int, Meta(ge=1, le=2**16)]
    bits: Annotated[int, Meta(ge=1, le=16)]
    mode: Word = "affine"


class Config(msgspec.Struct):
    """config.json, or the part of one that describes the language model. A size may differ between layers."""

    model_type: Word | UnsetType = UNSET
    architectures: list[str] | str | None = None
    num_hidden_layers: Layers | None = None
    hidden_size: Annotated[int, Meta(ge=1, le=2**20)] | None = None
    intermediate_size: Size | list[Size] | None = None
    num_attention_heads: Annotated[int, Meta(ge=1, le=2**16)] | list[Heads] | None = None
    num_key_value_heads: Heads | list[Heads] | None = None
    head_dim: Annotated[int, Meta(ge=1, le=2**16)] | None = None
    vocab_size: Annotated[int, Meta(ge=1, le=2**24)] | None = None
    max_position_embeddings: Annotated[int, Meta(ge=1, le=2**40)] | None = None
    tie_word_embeddings: bool | None = None
    torch_dtype: str | None = None
    dtype: str | None = None
    eos_token_id: Tokens = None
    quantization: dict[str, Quantization | int | float | str | bool | list[Any] | None] | None = None
    quantization_config: dict[str, Any] | None = None
    text_config: "Config | None" = None


class TokenizerConfig(msgspec.Struct):
    """tokenizer_config.json. A chat template is one text, or a list of named ones."""

    tokenizer_class: Text | None = None
    chat_template: Text | list[dict[str, Text]] | dict[str, Text] | None = None
    chat_template_type: Word | None = None
    tool_parser_type: Word | None = None
    bos_token: Text | dict[str, Any] | None = None
    eos_token: Text | dict[str, Any] | None = None
    pad_token: Text | dict[str, Any] | None = None
    unk_token: Text | dict[str, Any] | None = None
    added_tokens_decoder: dict[str, dict[str, Any]] = {}
    fast_tokenizer_files: list[Annotated[str, Meta(pattern=r"^[^/\\\x00]*\Z")]] | None = None
    gguf_file: None = None
    """Of all keys that name a file, transformers reads these two from wherever they point."""


class GenerationConfig(msgspec.Struct):
    """generation_config.json."""

    eos_token_id: Tokens = None


class Index(msgspec.Struct):
    """model.safetensors.index.json: the file of each tensor."""

    weight_map: dict[str, Annotated[str, Meta(pattern=r"^[^/\\\x00]*\.safetensors\Z")]]


class LoraParameters(msgspec.Struct):
    """The shape of an adapter."""

    rank: Annotated[int, Meta(ge=1, le=2**16)]
    scale: Annotated[float, Meta(ge=-1e9, le=1e9)]
    dropout: Annotated[float, Meta(ge=0, le=1)] = 0.0
    keys: list[str] | None = None


class AdapterConfig(msgspec.Struct):
    """adapter_config.json."""

    num_layers: Annotated[int, Meta(ge=-1, le=2000)]
    lora_parameters: LoraParameters
    fine_tune_type: str = "lora"


class PeftConfig(msgspec.Struct):
    """adapter_config.json as PEFT writes it; target_modules is not read, for the tensors name their layers."""

    peft_type: Literal["LORA"]
    r: Annotated[int, Meta(ge=1, le=2**16)]
    lora_alpha: Annotated[float, Meta(ge=-1e9, le=1e9)]
    lora_dropout: Annotated[float, Meta(ge=0, le=1)] = 0.0
    use_dora: bool = False
    use_rslora: bool = False
    fan_in_fan_out: bool = False
    bias: str = "none"
    lora_bias: bool = False
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, Any] | None = None
    alpha_pattern: dict[str, Any] | None = None
    layer_replication: list[Any] | None = None
    target_parameters: list[str] | None = None
    trainable_token_indices: dict[str, Any] | list[Any] | None = None
    use_qalora: bool = False

    def unsupported(self) -> list[str]:
        """Keys that ask for what an adapter of mlx-lm cannot hold."""
        asked = (
            *("fan_in_fan_out", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication"),
            *("target_parameters", "trainable_token_indices", "use_qalora"),
        )
        return (["bias"] if self.bias != "none" else []) + [key for key in asked if getattr(self, key)]


SCHEMAS: dict[str, type[msgspec.Struct]] = {
    "config.json": Config,
    "tokenizer_config.json": TokenizerConfig,
    "generation_config.json": GenerationConfig,
    "model.safetensors.index.json": Index,
}
Shape = TypeVar("Shape", bound=msgspec.Struct)


def config(path: Path, hint: str = AGAIN) -> dict[str, Any]:
    """A config.json as it is, after its check. Raises ThunderError. hint: for a file that is missing."""
    if not os.path.lexists(path):
        raise ThunderError("is missing", where=str(path), hint=hint)
    value, _ = read(path, Config, str(path))
    return value


def without_dora(path: Path) -> str:
    """The layers that mlx-lm's DoRA cannot compute, by config.json alone; "" if none are known."""
    value, values = read(path, Config, str(path))
    tables = [each for each in (values.quantization or {}).values() if isinstance(each, Quantization)]
    bits = (values.quantization or {}).get("bits")
    if supported_models.has_experts(value):
        return "layers of experts"
    if not tables and isinstance(bits, int) and bits not in supported_models.DORA_BITS:
        return f"layers of {bits} bits"
    return ""


def layers(path: Path) -> int | None:
    """Transformer layers according to a config.json; None if it does not say. Raises ThunderError."""
    _, values = read(path, Config, str(path))
    return (values.text_config or values).num_hidden_layers


def read(path: Path, schema: type[Shape], where: str) -> tuple[dict[str, Any], Shape]:
    """The table in a JSON file, as it is and as a struct. Raises ThunderError. where: the file as users know it."""
    try:
        value = json.loads(_content(path, where).decode())
    except (ValueError, RecursionError) as error:
        what = "is nested too deep" if isinstance(error, RecursionError) else f"is not JSON: {error}"
        raise ThunderError(what, where, AGAIN) from None
    if _depth(value) > DEEPEST:
        raise ThunderError(f"is nested deeper than {DEEPEST}", where, AGAIN)
    parts = [value, value.get("text_config")] if isinstance(value, dict) else []
    maps = [(key, part[key]) for key in CODE for part in parts if isinstance(part, dict) and part.get(key) is not None]
    if maps and not _builds_without(value, maps, path):
        what = f"needs code from its own repository to load ({maps[0][0]}), which Thunder Train never runs"
        raise ThunderError(what, where, "use a model whose architecture mlx-lm has itself")
    try:
        return value, msgspec.convert(value, schema)
    except (ValueError, RecursionError) as error:
        what, _, key = str(error).partition(" - at ")
        key = key.strip("`").removeprefix("$").removeprefix(".")
        raise ThunderError(what[:1].lower() + what[1:], f"{where}: {key}" if key else where, AGAIN) from None


def _builds_without(config: dict[str, Any], maps: list[tuple[str, Any]], path: Path) -> bool:
    """Whether a config.json names code that only transformers would use: mlx-lm builds the model with its own.

    maps: the keys that name code. With that code in the folder nothing is read: what is not there cannot be run.
    """
    names = [
        name for key, named in maps for name in (named if key == "auto_map" and isinstance(named, dict) else [key])
    ]
    is_elsewhere = (
        isinstance(config, dict) and path.name == "config.json" and {*CODE, "AutoTokenizer"}.isdisjoint(names)
    )
    return is_elsewhere and supported_models.has(config) and not any(path.parent.glob("*.py"))


def problems(folder: Path, name: str) -> list[ThunderError]:
    """Why the files of a model's folder cannot be read. name: the folder as users know it."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        return [ThunderError(f"cannot be read: {error.strerror}", name, "give a folder that you may read")]
    found = []
    for path in entries:
        try:
            _check(path, f"{name}: {path.name}")
        except ThunderError as problem:
            found.append(problem)
    return found


def check(folder: Path, name: str) -> None:
    """Raise every problem of a model's folder."""
    raise_all(problems(folder, name))


def check_weights(path: Path, where: str) -> None:
    """Raise ThunderError unless a .safetensors file is whole: its header, and as many bytes as the header says."""
    from safetensors import SafetensorError, safe_open  # late: it loads numpy

    _regular(path, where)
    try:
        with safe_open(path, "numpy"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise ThunderError(f"is cut short or damaged: {error}", where, "download or copy it again") from None


def is_read(path: Path) -> bool:
    """Whether mlx-lm or transformers would read a file of this name."""
    return path.name.endswith((".json", ".jinja", ".tiktoken", *LARGE, ".model", ".txt"))


def _check(path: Path, where: str) -> None:
    if not is_read(path):
        return
    if not path.name.isprintable():
        raise ThunderError(f"holds {quoted(path.name)}", where.partition(": ")[0], "rename this file")
    if path.suffix in LARGE:
        check_weights(path, where)
    elif path.name in SCHEMAS:
        _, values = read(path, SCHEMAS[path.name], where)
        if isinstance(values, Config):
            _check_quantization(values, where)
    else:
        _content(path, where, TOKENIZER_LIMIT if path.name.endswith(VOCABULARIES) else SMALL_LIMIT, is_whole=False)


def _check_quantization(values: Config, where: str) -> None:
    """mlx-lm takes group_size and bits from the table as they are."""
    if values.quantization is None:
        return
    try:
        msgspec.convert({key: values.quantization.get(key) for key in ("group_size", "bits")}, Quantization)
    except ValueError as error:
        what, _, key = str(error).partition(" - at ")
        at = f"{where}: quantization.{key.strip('`').removeprefix('$.')}"
        raise ThunderError(what[:1].lower() + what[1:], at, AGAIN) from None


def _content(path: Path, where: str, limit: int = SMALL_LIMIT, is_whole: bool = True) -> bytes:
    """The bytes of a file; only the first when is_whole is False. Raises ThunderError."""
    size = _regular(path, where)
    try:
        with open(path, "rb") as file:
            content = file.read(limit + 1 if is_whole else 1)
    except OSError as error:
        raise ThunderError(f"cannot be read: {error.strerror}", where, "check its rights") from None
    if max(size, len(content)) > limit:
        raise ThunderError(f"is longer than {limit >> 20} MiB", where, "give the files of a model")
    return content


def _regular(path: Path, where: str) -> int:
    """The size of a regular file. A pipe would never end, and a device has no end."""
    try:
        if path.is_file():
            return path.stat().st_size
    except OSError as error:
        raise ThunderError(f"cannot be read: {error.strerror}", where, "check its rights") from None
    what = "is a link to nothing" if path.is_symlink() and not path.exists() else "is not a file"
    raise ThunderError(what, where, "put the model's file there")


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [item for each in level for item in (each.values() if isinstance(each, dict) else each)]
    return depth
