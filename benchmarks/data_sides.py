"""The commands of the sides of the data benchmark: ours, the rival and the floor."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
RIVAL, FLOOR = "datasets==5.2.0", "polars==2.1.0"
PROMPT = "Partition: {{ partition }}\nHypothesis: {{ asr_text }}\n"


def machine() -> str:
    """The machine, without its name."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def ours(pairs: Path, out: Path) -> list[str]:
    """The function of the data stage, as doit calls it."""
    return [sys.executable, str(Path(__file__)), str(pairs), str(out)]


def theirs(bench: Path, pairs: Path, out: Path) -> list[str]:
    """The rival, in its own environment."""
    python = _python(bench / "rival-venv", RIVAL)
    return [python, str(Path(__file__).with_name("data_rival.py")), str(pairs), str(out)]


def floor(bench: Path, pairs: Path, out: Path) -> list[str]:
    """The bare job with Polars, in its own environment."""
    python = _python(bench / "floor-venv", FLOOR)
    return [python, str(Path(__file__).with_name("data_floor.py")), str(pairs), str(out)]


def _python(environment: Path, package: str) -> str:
    """The interpreter of an environment with one package, which is made if it is not there."""
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", package], check=True)
    return str(python)


def main(pairs: Path, out: Path) -> None:
    """Build a dataset of the pairs, and print the number of rows and the digest of each split."""
    sys.path.insert(0, str(PROJECT))
    from thunder_train.config.dataset import Dataset, Source
    from thunder_train.data import audit, builder

    (pairs / "prompt.j2").write_text(PROMPT, encoding="utf-8")
    source = Source(
        kind="rows",
        path="predictions.jsonl",
        references="references.jsonl",
        evidence_kind="synthetic",
        rows="",
        fields={},
        constants={},
        enums={},
        reference_side=(),
        use=("accepted",),
    )
    dataset = Dataset(
        name="bench",
        sources=(source,),
        system="Correct this text.",
        templates=("prompt.j2",),
        orthography="bridge-toneless",
        orthography_table={},
        split_seed=0,
        valid=0.05,
        test=0.05,
        group_keys=("video_id", "audio_path", "segment_id", "feat_id", "text"),
        max_dropped=0.5,
        provenance="",
    )
    manifest = builder.build(dataset, pairs, out, "", audit.build)
    rows = sum(split["rows"] for split in manifest["splits"].values())
    print(json.dumps({"rows": rows, "digests": {name: each["sha256"] for name, each in manifest["splits"].items()}}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
