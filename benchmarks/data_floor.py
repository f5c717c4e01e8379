"""The floor of the data benchmark: predictions and references to ChatML with Polars, and nothing else.

It reads both files, joins them, puts the texts together, splits by a hash of the key, sorts by id and writes. It checks
no spelling, leak, duplicate or group, reads no telemetry, counts nothing, and would not notice a malformed row.
"""

import json
import sys
from pathlib import Path

import polars as pl

MESSAGES = (("system", "Correct this text."), ("user", ""), ("assistant", ""))


def main(pairs: Path, out: Path) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl, and print the number of rows."""
    out.mkdir(parents=True, exist_ok=True)
    predictions, references = (pl.read_ndjson(pairs / f"{name}.jsonl") for name in ("predictions", "references"))
    rows = predictions.join(references.select("audio_path", "reference_text"), on="audio_path")
    user = pl.format("Partition: {}\nHypothesis: {}", "partition", "asr_text")
    contents = (pl.lit(MESSAGES[0][1]), user, pl.col("reference_text"))
    turns = [
        pl.struct(content=content, role=pl.lit(role)) for (role, _), content in zip(MESSAGES, contents, strict=True)
    ]
    rows = rows.select(
        "asr_text",
        pl.col("audio_path").alias("group"),
        pl.format("predictions:{}", "audio_path").alias("id"),
        pl.concat_list(turns).alias("messages"),
        "partition",
        "reference_text",
        pl.lit("predictions").alias("source"),
    ).sort("id")
    place = rows["group"].hash(seed=0) / 2**64
    counts = []
    for name, low, high in (("valid", 0.0, 0.05), ("test", 0.05, 0.1), ("train", 0.1, 1.0)):
        part = rows.filter((place >= low) & (place < high))
        part.write_ndjson(out / f"{name}.jsonl")
        counts.append(len(part))
    print(json.dumps({"rows": sum(counts), "digests": {}}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
