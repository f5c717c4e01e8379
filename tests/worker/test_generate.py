"""Losses and answers of base and adapter."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.worker.conftest import TEXTS, flags, python
from thunder_train import files

pytestmark = pytest.mark.ranks


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory):
    """An adapter that was trained for 4 steps."""
    place = tmp_path_factory.mktemp("generate") / "adapter"
    assert 0 == python("thunder_train.worker", flags(place), folder).returncode
    return place


def generate(folder, adapter, out, **changed):
    """Run the program; its files land in out."""
    chosen = {"model": "nano", "adapter_path": adapter, "valid_data": "valid.jsonl", "test_data": "test.jsonl"}
    chosen |= {"max_tokens": 6, "batch_size": 4, "predictions": out / "p.jsonl", "losses": out / "l.json"}
    arguments = [part for name, value in (chosen | changed).items() for part in (f"--{name}".replace("_", "-"), value)]
    return python("thunder_train.worker.generate", list(map(str, arguments)), folder)


def test_base_and_adapter_are_scored_on_both_splits(folder, adapter, tmp_path):
    """
    The adapter's loss is worth something only beside the base's on the same rows.
    """
    done = generate(folder, adapter, tmp_path)
    losses = files.read_json(tmp_path / "l.json")
    trained = json.loads((adapter / "done.json").read_text())

    assert (0, "") == (done.returncode, done.stderr)
    assert {"base", "adapter", "environment"} == set(losses)
    assert trained["losses"]["valid"][-1][1] == pytest.approx(losses["adapter"]["valid"]["loss"], abs=1e-5)
    assert losses["adapter"]["valid"]["loss"] < losses["base"]["valid"]["loss"]
    assert trained["tokens"]["valid_targets"] == losses["base"]["valid"]["tokens"]
    assert losses["base"]["test"]["perplexity"] == pytest.approx(np.exp(losses["base"]["test"]["loss"]), rel=1e-5)


def test_every_test_row_gets_two_answers_without_special_tokens(folder, adapter, tmp_path):
    """
    The host scores them: it needs texts, in the rows' order, and nothing a model marks turns with.
    """
    generate(folder, adapter, tmp_path)
    predictions = files.read_jsonl(tmp_path / "p.jsonl")

    assert {"id", "partition", "asr_text", "reference_text", "base", "adapter"} == set(predictions[0])
    assert TEXTS[3:6] == [each["reference_text"] for each in predictions]
    assert not any("<" in each["base"] + each["adapter"] for each in predictions)


def test_answers_do_not_depend_on_the_batch(folder, adapter, tmp_path):
    """
    Rows of unequal length share a batch; padding must not show in the answers.
    """
    outputs = []
    for size in (1, 4):
        (tmp_path / str(size)).mkdir()
        generate(folder, adapter, tmp_path / str(size), batch_size=size)
        outputs.append((tmp_path / str(size) / "p.jsonl").read_text())

    assert outputs[0] == outputs[1]


def test_an_empty_test_split_has_no_loss_and_no_answers(folder, adapter, tmp_path):
    """
    A recipe may keep no test rows; the loss is then unknown, not zero.
    """
    (folder / "empty.jsonl").write_text("")
    done = generate(folder, adapter, tmp_path, test_data="empty.jsonl")

    assert 0 == done.returncode
    expected = {"loss": None, "perplexity": None, "tokens": 0, "dropped": 0}
    assert expected == files.read_json(tmp_path / "l.json")["base"]["test"]
    assert "" == (tmp_path / "p.jsonl").read_text()


def test_an_adapter_with_a_nan_is_refused(folder, adapter, tmp_path):
    """
    It would answer padding for ever, and look like a slow model.
    """
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    tensors = load_file(adapter / "adapters.safetensors")
    first = min(tensors)
    tensors[first][0, 0] = np.nan
    save_file(tensors, broken / "adapters.safetensors")
    done = generate(folder, broken, tmp_path)

    expected = f"1 tensors are not finite, first {first}; train again with a lower learning rate\n"
    assert (2, f"{broken / 'adapters.safetensors'}: {expected}") == (done.returncode, done.stderr)


def test_an_adapter_of_another_model_is_refused(folder, adapter, tmp_path):
    """
    Wrong shapes are told in one message, not with a traceback.
    """
    from thunder_train.worker import nano

    nano.write(tmp_path / "other", nano.Shape(layers=2, width=64, heads=2, kv_heads=1, hidden=48), seed=0)
    done = generate(folder, adapter, tmp_path, model=tmp_path / "other")

    assert 2 == done.returncode
    assert done.stderr.startswith(f"{adapter}: does not fit the model: ")
    assert "Traceback" not in done.stderr
