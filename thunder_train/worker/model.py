"""The base model: loading, LoRA layers on its last blocks, and numbers of parameters."""

import contextlib
import difflib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_lm.utils
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.tuner.trainer import grad_checkpoint
from mlx_lm.tuner.utils import linear_to_lora_layers

from thunder_train import ThunderError, raise_all
from thunder_train.config.train import ALL
from thunder_train.core import files, hub_cache, model_files, shipped, supported_models

ADAPTABLE = (nn.Linear, nn.QuantizedLinear, nn.Embedding, nn.QuantizedEmbedding, SwitchLinear, QuantizedSwitchLinear)
"""The layers that mlx-lm can put an adapter on, besides modules with a to_lora of their own."""


HEAD = "lm_head"
"""The output layer, of a model whose embedding does not stand in for it."""
READ_DIRECTLY = ("altup.prediction_coefs", "altup.correction_coefs")
"""Layers of Gemma 3n's blocks whose weights mlx-lm reads itself: it finds none where an adapter is around them."""
NO_CODE = {"trust_remote_code": False}
"""Without it, transformers asks on a terminal whether to run a tokenizer's code."""
LONGEST_REASON = 500
"""Most characters of a library's message that an error quotes."""


@dataclass(frozen=True)
class Lora:
    """The adapter: W x becomes W x + scale * B A x, with A and B of rank `rank` (LoRA, Hu et al. 2021).

    num_layers: last blocks that get an adapter, or "all". scale: alpha / rank in the paper. keys: names of layers
    inside a block, or lm_head; empty: every adaptable layer of a block. kind: lora, or dora, which also trains a norm
    for each output (Liu et al. 2024).
    """

    num_layers: Any
    rank: int
    scale: float = 20.0
    dropout: float = 0.0
    keys: tuple[str, ...] = ()
    kind: str = "lora"

    def parameters(self) -> dict[str, Any]:
        """mlx-lm's `lora_parameters`."""
        keys = {"keys": list(self.keys)} if self.keys else {}
        return {"rank": self.rank, "scale": self.scale, "dropout": self.dropout, **keys}


def load(name: str, revision: str, lazy: bool = False) -> tuple[nn.Module, Any]:
    """Model and tokenizer from a folder or, offline, from the hub cache. A model's own Python code is never run.

    lazy: leave the weights unread until they are used, for a model that may not fit before it is split. Raises
    ThunderError when the model is missing or mlx-lm cannot load it.
    """
    if mx.default_device().type == mx.cpu:
        # On a CPU mlx compiles with the system's C++ compiler at run time: two minutes for a small model.
        mx.disable_compile()
    folder = locate(name, revision)
    model_files.check(folder, name)
    raise_all(supported_models.problems(model_files.config(folder / "config.json"), f"--model {name}"))
    with loading("mlx-lm cannot load it", f"--model {name}"):
        model, tokenizer = mlx_lm.utils.load(
            str(folder), NO_CODE, lazy=lazy, trust_remote_code=NO_CODE["trust_remote_code"]
        )[:2]
    if mx.default_device().type == mx.cpu:
        raise_all(_cpu_problems(model, f"--model {name}"))
    return model, tokenizer


def _cpu_problems(model: nn.Module, where: str) -> list[ThunderError]:
    """What MLX computes on a GPU only; it would say so in the middle of the first pass."""
    experts = [module for module in model.modules() if isinstance(module, (SwitchLinear, QuantizedSwitchLinear))]
    only = "which MLX computes on a GPU only"
    if any(module.get("global_scale") is not None for module in experts):
        return [ThunderError(f"has experts in nvfp4 with a scale of their own, {only}", where, "use another packing")]
    kinds = {module.weight.dtype for module in experts if isinstance(module, SwitchLinear)} - {mx.float32}
    if not kinds:
        return []
    names = " and ".join(sorted(str(kind).removeprefix("mlx.core.") for kind in kinds))
    hint = "convert it with `mlx_lm.convert --dtype float32`, or pack it with -q"
    return [ThunderError(f"has experts in {names}, {only}", where, hint)]


@contextlib.contextmanager
def loading(what: str, where: str) -> Iterator[None]:
    """Turns whatever a library raises for a wrong model into a ThunderError: no list of kinds would be whole."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, ThunderError):
        raise
    except BaseException as error:  # a panic of tokenizers is no Exception
        reason = " ".join(f"{type(error).__name__} {error}".split())
        hint = "give an mlx-lm folder, or convert it first"
        raise ThunderError(f"{what}: {reason[:LONGEST_REASON]}", where=where, hint=hint) from error


def pinned_commit(lock: str) -> str:
    """The hub commit that a model.lock.json names; "" without a lock, or for a model that is not from the hub."""
    return str(files.read_json(lock, hint="run `./doit model`").get("commit", "")) if lock else ""


def locate(name: str, revision: str) -> Path:
    """The model's folder: the path itself, or the revision's snapshot in the project or in this machine's hub cache."""
    synced = Path(hub_cache.snapshot_in_project(name, revision))
    if (folder := shipped.place(name)).is_dir():
        return folder
    if revision and synced.is_dir():
        return synced
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    patterns = mlx_lm.utils.DEFAULT_ALLOW_PATTERNS
    try:
        return Path(snapshot_download(name, revision=revision or None, local_files_only=True, allow_patterns=patterns))
    except (HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ThunderError(
            "is neither a folder nor in the hub cache",
            where=f"--model {name}",
            hint="run `./doit model` on this machine",
        ) from error


def add_lora(model: nn.Module, lora: Lora, seed: int) -> None:
    """Freeze the model and put adapters on its last blocks; the same adapter for the same seed.

    Raises ThunderError for more layers than there are, unknown keys, and an adapter without parameters.
    """
    raise_all(layer_problems(model, lora))
    model.freeze()  # linear_to_lora_layers does not: norms and unquantised weights would be trained too
    # Just before the adapters are drawn: they must be equal on all ranks, which never exchange weights.
    mx.random.seed(seed)
    linear_to_lora_layers(model, lora.num_layers, lora.parameters(), use_dora=lora.kind == "dora")
    if not trainable(model):
        what, hint = "has no layer that can get LoRA", "use another base model"
        raise ThunderError(what, where=f"a {type(model).__module__.rpartition('.')[2]} model", hint=hint)


def resolved(model: nn.Module, lora: Lora) -> Lora:
    """The adapter with a number of layers, and with keys that mlx-lm understands: whole names, no patterns.

    Without keys they are named where mlx-lm's "all" would include some that it cannot compute then.
    """
    blocks = model.layers
    count = len(blocks) if lora.num_layers == ALL else lora.num_layers
    names = adaptable_names(blocks)
    if lora.keys:
        # A key without a layer stays, for `layer_problems` to name it.
        keys = {name for key in lora.keys for name in (_matching(key, names | _outside(model)) or {key})}
        keep = lora.keys if keys == set(lora.keys) else tuple(sorted(keys))
    else:
        is_whole = {name for block in blocks for name, _ in block.named_modules()}.isdisjoint(READ_DIRECTLY)
        keep = () if is_whole else tuple(sorted(names))
    return replace(lora, num_layers=count, keys=keep)


def _matching(key: str, names: set[str]) -> set[str]:
    """The names that a key means: its own, a pattern's, or those that end with it.

    A pattern may be meant for whole names, as model.layers.3.mlp.up_proj: `*.mlp.*`.
    """
    if key in names:
        return {key}
    return {name for name in names if _is_like(name, key)}


def _is_like(name: str, key: str) -> bool:
    return name.endswith(f".{key}") or fnmatchcase(name, key) or fnmatchcase(f"layers.{name}", key)


def _outside(model: nn.Module) -> set[str]:
    """Names of the output layer, if the model has one of its own."""
    return {name for name, module in model.named_modules() if name.split(".")[-1] == HEAD and _is_adaptable(module)}


def layer_problems(model: nn.Module, lora: Lora) -> list[ThunderError]:
    """Every reason why the model cannot get this adapter, which is `resolved`. Reads shapes only.

    mlx-lm reads 0 layers as all layers and ignores unknown keys silently.
    """
    problems, blocks = [], len(model.layers)
    if not 1 <= lora.num_layers <= blocks:
        fact = f"must be from 1 to the model's {blocks} layers, not {lora.num_layers}"
        problems.append(ThunderError(fact, where="--num-layers"))
    trained = model.layers[-lora.num_layers :] if 1 <= lora.num_layers <= blocks else model.layers
    names, everywhere = adaptable_names(trained), adaptable_names(model.layers)
    for key in sorted(set(lora.keys) - names - _outside(model)):
        if key in everywhere:  # hybrid models have several kinds of blocks
            nearest = max(number for number, block in enumerate(model.layers) if key in adaptable_names([block]))
            fact, hint = (
                f"none of the last {lora.num_layers} layers has {key!r}",
                f"set num_layers to {blocks - nearest}",
            )
        elif key == HEAD:
            fact, hint = "this model's output layer is its embedding, which gets no LoRA", "leave lm_head out"
        else:
            near = difflib.get_close_matches(key, sorted(names), n=1)
            fact = f"no layer is called {key!r}"
            hint = f"did you mean {near[0]!r}?" if near else f"use some of: {', '.join(sorted(names))}"
        problems.append(ThunderError(fact, where="--lora-keys", hint=hint))
    return problems + (_dora_problems(trained, lora) if lora.kind == "dora" else [])


def _dora_problems(blocks: list[nn.Module], lora: Lora) -> list[ThunderError]:
    """A problem for each kind of layer that would get an adapter and that mlx-lm's DoRA cannot compute."""
    reasons = {name: reason for name, module in adaptable(blocks) if (reason := _without_dora(module))}
    possible = sorted(adaptable_names(blocks) - set(reasons))
    asked = {name: reason for name, reason in reasons.items() if not lora.keys or name in lora.keys}
    keys = f", or lora_keys = {json.dumps(possible)}" if possible else ""
    return [
        ThunderError(
            f"DoRA is not supported on {reason}, as {next(name for name in asked if asked[name] == reason)}",
            "--fine-tune-type",
            f'set fine_tune_type = "lora"{keys}',
        )
        for reason in dict.fromkeys(asked.values())
    ]


def _without_dora(module: nn.Module) -> str:
    """What mlx-lm's DoRA cannot be put on; "" if it can."""
    if isinstance(module, (SwitchLinear, QuantizedSwitchLinear)):
        return "layers of experts"
    if isinstance(module, nn.QuantizedLinear) and module.bits not in supported_models.DORA_BITS:
        return f"layers of {module.bits} bits"
    if isinstance(module, nn.QuantizedEmbedding):
        return "quantised embeddings"
    return f"layers of type {type(module).__name__}" if hasattr(module, "to_lora") else ""


def checkpoint_blocks(model: nn.Module) -> None:
    """Compute the activations of every block again in the backward pass, instead of keeping them.

    mlx-lm's grad_checkpoint patches the class of a block. So it is called for each class, since the blocks of a hybrid
    model have several, and only once, or they would be computed three times.
    """
    for block in {type(block): block for block in model.layers}.values():
        grad_checkpoint(block)


def adaptable(blocks: list[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Name inside its block, and module, of each layer that can get an adapter."""
    for block in blocks:
        for name, module in block.named_modules():
            if name and _is_adaptable(module) and name not in READ_DIRECTLY:
                yield name, module


def _is_adaptable(module: nn.Module) -> bool:
    return hasattr(module, "to_lora") or isinstance(module, ADAPTABLE)


def adaptable_names(blocks: list[nn.Module]) -> set[str]:
    """Names, inside a block, of the layers that can get an adapter."""
    return {name for name, _ in adaptable(blocks)}


def trainable(model: nn.Module) -> dict[str, mx.array]:
    """The trained parameters by name, sorted."""
    return dict(sorted(tree_flatten(model.trainable_parameters())))


def adapter_tensors(model: nn.Module) -> dict[str, Any]:
    """The trained parameters as numpy arrays."""
    return {name: np.array(leaf) for name, leaf in trainable(model).items()}


def trainable_parameters(model: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(leaf.size for leaf in trainable(model).values())


def parameters(model: nn.Module) -> int:
    """Number of the model's parameters; a quantised weight counts as the weights that it encodes."""
    return int(mlx_lm.utils.get_total_parameters(model))


def build(config: dict[str, Any]) -> nn.Module:
    """A model from its config.json alone. MLX is lazy, so no weight is computed.

    Raises ThunderError when mlx-lm cannot build it.
    """
    with loading("mlx-lm cannot build it", "--config"):
        model_class, arguments = mlx_lm.utils._get_classes(config)
        model: nn.Module = model_class(arguments.from_dict(config))
        if config.get("tie_word_embeddings", True) and hasattr(model, "sanitize"):
            model.sanitize({})  # Gemma, for one, ties the output layer only when it finds no lm_head among the weights
        if quantization := config.get("quantization"):
            _quantize(model, quantization, _quantized_layers(quantization))
        elif settings := supported_models.packing(config):
            _quantize(model, _read_as(settings), _packed_layers(settings))
    return model


def _quantize(model: nn.Module, quantization: dict[str, Any], choose: Callable[[str, nn.Module], Any]) -> None:
    nn.quantize(
        model,
        group_size=quantization["group_size"],
        bits=quantization["bits"],
        mode=quantization.get("mode", "affine"),
        class_predicate=choose,
    )


def _quantized_layers(quantization: dict[str, Any]) -> Callable[[str, nn.Module], Any]:
    """Chooses layers by the config alone. mlx-lm's loader looks for their scales among the weights, absent here."""

    def choose(path: str, module: nn.Module) -> Any:
        if path in quantization:
            return quantization[path]
        return hasattr(module, "to_quantized") and module.weight.shape[-1] % quantization["group_size"] == 0

    return choose


def _read_as(settings: dict[str, Any]) -> dict[str, Any]:
    """mlx-lm's table for weights that another tool packed, as its loader makes it."""
    method, form = settings.get("quant_method"), str(settings.get("format"))
    if method == "awq":
        return {"group_size": settings.get("group_size", 128), "bits": settings.get("bits", 4)}
    if method == "modelopt" or form.startswith("nvfp4"):
        return {"group_size": 16, "bits": 4, "mode": "nvfp4"}
    if method == "compressed-tensors" and form == "pack-quantized":
        return {"group_size": 32, "bits": 4}
    is_four = method == "mxfp4" or form.startswith("mxfp4")
    return {"group_size": 32, "bits": 4, "mode": "mxfp4"} if is_four else {"group_size": 32, "bits": 8, "mode": "mxfp8"}


def _packed_layers(settings: dict[str, Any]) -> Callable[[str, nn.Module], Any]:
    """Chooses the layers that another tool packed; its config names those that it did not pack, embeddings never."""
    left_out = [str(name).removeprefix("model.layers.*.") for name in settings.get("modules_to_not_convert") or []]
    method = settings.get("quant_method")
    if method == "bitnet" or (method == "fp8" and not supported_models.is_mxfp8(settings)):  # unpacked, or own layers
        return lambda path, module: False

    def choose(path: str, module: nn.Module) -> Any:
        is_linear = isinstance(module, (nn.Linear, SwitchLinear)) and not path.endswith("lm_head")
        return is_linear and not any(name in path for name in left_out) and hasattr(module, "to_quantized")

    return choose
