"""Where a hub model's files lie, in huggingface_hub's own layout."""

from pathlib import Path

import pytest

from thunder_train.agent import files as agent_files
from thunder_train.core import hub_cache


def test_the_host_and_the_controller_use_one_folder() -> None:
    """
    The agent on a host has only the standard library, so it repeats the name.
    """
    assert agent_files.HUB == hub_cache.IN_PROJECT


def test_a_snapshot_is_where_huggingface_hub_looks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A host without a network loads what sync placed there.
    """
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "a" * 40
    config = hub_cache.snapshot_here("owner/name", commit) / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text("{}")

    assert config == hub_cache.file_here("owner/name", "config.json", commit)
    assert hub_cache.file_here("owner/name", "model.safetensors", commit) is None
    assert hub_cache.file_here("no/such/name", "config.json", commit) is None
