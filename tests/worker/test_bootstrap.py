"""Files that come by environment."""

import os
from pathlib import Path

from thunder_train.worker.bootstrap import remove_files, unpack_files


def test_a_file_in_the_environment_becomes_a_path(monkeypatch):
    """
    MLX reads its addresses from a file, and the launcher writes none on other machines.
    """
    monkeypatch.setenv("THUNDER_FILE_MLX_HOSTFILE", '[["10.0.0.1:1"]]')
    monkeypatch.setenv("MLX_HOSTFILE", "")

    unpack_files()
    path = Path(os.environ["MLX_HOSTFILE"])
    content = path.read_text()
    remove_files()

    assert '[["10.0.0.1:1"]]' == content
    assert not path.exists()
