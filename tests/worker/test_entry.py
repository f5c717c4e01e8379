"""Files that come by environment."""

import os

from thunder_train.worker.entry import unpack_files


def test_a_file_in_the_environment_becomes_a_path(tmp_path, monkeypatch):
    """
    MLX reads its addresses from a file, and the launcher writes none on other machines.
    """
    monkeypatch.setenv("THUNDER_FILE_MLX_HOSTFILE", '[["10.0.0.1:1"]]')
    monkeypatch.setenv("MLX_HOSTFILE", "")

    unpack_files(tmp_path)

    assert str(tmp_path / "MLX_HOSTFILE") == os.environ["MLX_HOSTFILE"]
    assert '[["10.0.0.1:1"]]' == (tmp_path / "MLX_HOSTFILE").read_text()
