"""Eight of our tasks that read one large file; writes to reads.txt how often the file was read.

The benchmark copies it as dodo.py into a folder beside pyproject.toml.
"""

import atexit
from pathlib import Path
from typing import Any

from thunder_train.build import key
from thunder_train.build import stage as build
from thunder_train.build.run_cache import RunCache
from thunder_train.core import files

DOIT_CONFIG = {"check_file_uptodate": build.Sha256Checker}
READS: list[str] = []
real_sha256 = files.sha256


def counted_sha256(path: Any) -> str:
    """files.sha256, which records each call."""
    READS.append(str(path))
    return real_sha256(path)


files.sha256 = counted_sha256
atexit.register(lambda: Path("reads.txt").write_text(str(READS.count("big.bin"))))


def task_read() -> Any:
    """Tasks that depend on the file and write a small one."""
    for number in range(8):
        target = f"out/{number}.txt"
        stage = key.Stage(
            name=f"read:{number}",
            make=lambda out, target=target: (out / target).write_text("done\n"),
            targets=(target,),
            inputs={"big.bin": "big.bin"},
            reads=key.Reads(),
            code=(),
        )
        yield build.task(stage, RunCache(Path("cache"), 10**9))
