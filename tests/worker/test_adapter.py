"""Adapter files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thunder_train import ThunderError

pytestmark = pytest.mark.mlx

TENSORS = {"b.lora_b": np.zeros((2, 3), np.float32), "a.lora_a": np.ones((3, 2), np.float32)}


def lora(**changed: Any) -> Any:
    """A LoRA of two layers, some values changed."""
    from thunder_train.worker.model import Lora

    return Lora(**({"num_layers": 2, "rank": 4, "scale": 10.0, "dropout": 0.0} | changed))


def test_the_bytes_do_not_depend_on_the_order_of_the_tensors() -> None:
    """
    mlx's own writer orders tensors by a hash map, so the same adapter would have different bytes.
    """
    from thunder_train.worker.adapter import canonical_bytes, tensor_digest

    backwards = dict(reversed(TENSORS.items()))

    assert canonical_bytes(TENSORS) == canonical_bytes(backwards)
    assert tensor_digest(TENSORS) == tensor_digest(backwards)


def test_the_digest_sees_shape_and_name() -> None:
    """
    Equal bytes with another name or shape are another adapter.
    """
    from thunder_train.worker.adapter import tensor_digest

    one = np.arange(6, dtype=np.float32)
    digests = {tensor_digest({"a": one}), tensor_digest({"b": one}), tensor_digest({"a": one.reshape(2, 3)})}

    assert 3 == len(digests)


def test_the_config_is_what_mlx_lm_reads() -> None:
    """
    The first Thunder Train wrote `lora_layers`, and mlx-lm could not load its adapters.
    """
    from thunder_train.worker.adapter import adapter_config

    parameters = {"rank": 4, "scale": 10.0, "dropout": 0.0}
    expected = {"model": "owner/base", "fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters}
    assert expected == adapter_config(lora(), "owner/base")
    config = adapter_config(lora(keys=("mlp.up_proj",)), "/home/me/base")
    assert ["mlp.up_proj"] == config["lora_parameters"]["keys"]
    assert "base" == config["model"]  # no path of this machine


def test_a_broken_adapter_replaces_nothing(tmp_path: Path) -> None:
    """
    An adapter with a NaN is useless, and the one before it may be the only good one.
    """
    from thunder_train.worker.adapter import write_adapter

    write_adapter(tmp_path, TENSORS, lora(), "base")
    good = (tmp_path / "adapters.safetensors").read_bytes()
    with pytest.raises(ThunderError) as caught:
        write_adapter(tmp_path, {"a.lora_a": np.full((1,), np.nan, np.float32)}, lora(), "base")

    expected = f"{tmp_path}: 1 adapter tensors are not finite, first a.lora_a; lower the learning rate"
    assert expected == str(caught.value)
    assert good == (tmp_path / "adapters.safetensors").read_bytes()


def test_a_new_run_removes_an_earlier_adapter(tmp_path: Path) -> None:
    """
    done.json of an earlier run would prove that this run is complete, which it is not yet.
    """
    from thunder_train.worker.adapter import remove_old, write_adapter, write_done

    write_adapter(tmp_path, TENSORS, lora(), "base")
    write_done(tmp_path, {"steps": 7})
    assert {"schema": "thunder.done/1", "steps": 7} == json.loads((tmp_path / "done.json").read_text())
    remove_old(tmp_path)

    assert ["adapter_config.json"] == sorted(path.name for path in tmp_path.iterdir())
