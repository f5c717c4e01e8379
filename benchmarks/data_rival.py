"""The rival of the data benchmark: predictions and references to ChatML with Hugging Face `datasets`.

It joins, maps, splits at random and writes, without checks for duplicates, leaks, spelling or groups.
"""

import json
import sys
from pathlib import Path
from typing import Any

from datasets import load_dataset


def main(pairs: Path, out: Path) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl, and print the number of rows."""
    cache = str(out / "cache")
    predictions = load_dataset("json", data_files=str(pairs / "predictions.jsonl"), split="train", cache_dir=cache)
    references = load_dataset("json", data_files=str(pairs / "references.jsonl"), split="train", cache_dir=cache)
    texts = dict(zip(references["audio_path"], references["reference_text"], strict=True))

    def chat(row: dict[str, Any]) -> dict[str, Any]:
        user = f"Partition: {row['partition']}\nHypothesis: {row['asr_text']}"
        answer = texts[row["audio_path"]]
        turns = [("system", "Correct this text."), ("user", user), ("assistant", answer)]
        return {"messages": [{"role": role, "content": text} for role, text in turns], "reference_text": answer}

    rows = predictions.filter(lambda row: row["audio_path"] in texts).map(chat)
    rest = rows.train_test_split(test_size=0.1, seed=0)
    held_out = rest["test"].train_test_split(test_size=0.5, seed=0)
    parts = {"train": rest["train"], "valid": held_out["train"], "test": held_out["test"]}
    keep = ["feat_id", "messages", "partition", "asr_text", "reference_text"]
    for name, part in parts.items():
        part.select_columns(keep).to_json(str(out / f"{name}.jsonl"), force_ascii=False)
    print(json.dumps({"rows": sum(len(part) for part in parts.values()), "digests": {}}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
