"""What base and adapter make of the rows they were not trained on: losses, and greedy answers for the host to score.

Reads model, adapter, valid.jsonl and test.jsonl; writes losses.json and predictions.jsonl. One process, no sampling, so
the same inputs give the same bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thunder_train import ThunderError, files
from thunder_train.worker.entry import Parser, enter

if TYPE_CHECKING:
    import mlx.nn as nn

    from thunder_train.worker.tokens import Example


@dataclass(frozen=True)
class Task:
    """One field per flag; `--help` says what each means."""

    model: str
    model_lock: str
    adapter_path: Path
    valid_data: Path
    test_data: Path
    max_seq_len: int
    max_tokens: int
    batch_size: int
    predictions: Path
    losses: Path


def main(argv: list[str]) -> None:
    """Score and generate with the base, then with the adapter on it."""
    task = parse(argv)
    from thunder_train.worker import model, tokens
    from thunder_train.worker.environment import environment

    check_adapter(task.adapter_path)
    network, tokenizer = model.load(task.model, model.pinned_commit(task.model_lock))
    splits = {
        name: tokens.read_all(path, tokenizer) for name, path in (("valid", task.valid_data), ("test", task.test_data))
    }
    losses: dict[str, Any] = {"environment": environment()}
    answers: dict[str, list[str]] = {}
    for condition in ("base", "adapter"):
        if condition == "adapter":
            apply_adapter(network, task.adapter_path)
        losses[condition] = {name: measure(network, rows, task) for name, rows in splits.items()}
        answers[condition] = generate(network, tokenizer, splits["test"], task)
    rows = files.read_jsonl(task.test_data)
    predictions = [predict(row, base, adapter) for row, base, adapter in zip(rows, *answers.values(), strict=True)]
    files.write_text(task.predictions, "".join(map(files.json_line, predictions)))
    files.write_json(task.losses, losses)


def parse(argv: list[str]) -> Task:
    """The task of a command line. Raises ThunderError."""
    parser = Parser(prog="thunder_train.worker.generate", description="score base and adapter, and let both answer")
    parser.add_argument("--model", required=True, help="mlx-lm folder, or hub id that is already in the cache")
    parser.add_argument("--model-lock", default="", help="model.lock.json, which pins the commit of a hub id")
    parser.add_argument("--adapter-path", type=Path, required=True, help="folder of the adapter")
    parser.add_argument("--valid-data", type=Path, required=True, help="ChatML rows to measure the loss on")
    parser.add_argument(
        "--test-data", type=Path, required=True, help="ChatML rows to measure the loss on and to answer"
    )
    parser.add_argument("--max-seq-len", type=int, default=512, help="tokens of a row whose loss is measured")
    parser.add_argument("--max-tokens", type=int, default=256, help="tokens of an answer, at most")
    parser.add_argument("--batch-size", type=int, default=8, help="rows at a time")
    parser.add_argument("--predictions", type=Path, required=True, help="JSONL file to write")
    parser.add_argument("--losses", type=Path, required=True, help="JSON file to write")
    task = Task(**vars(parser.parse_args(argv)))
    if min(task.max_seq_len, task.max_tokens, task.batch_size) < 1:
        raise ThunderError("must be 1 or more", where="--max-seq-len, --max-tokens, --batch-size")
    return task


def check_adapter(folder: Path) -> None:
    """Raise ThunderError for an adapter that is missing, unreadable or holds a number that is not finite."""
    import mlx.core as mx

    path = files.require(folder / "adapters.safetensors", mend="run `./doit train`")
    files.require(folder / "adapter_config.json", mend="run `./doit train`")
    try:
        tensors: Any = mx.load(str(path))
    except RuntimeError as error:
        raise ThunderError(f"cannot be read: {error}", where=str(path), mend="run `./doit train`") from error
    broken = sorted(name for name, tensor in tensors.items() if not mx.isfinite(tensor).all().item())
    if broken:
        fact = f"{len(broken)} tensors are not finite, first {broken[0]}"
        raise ThunderError(fact, where=str(path), mend="train again with a lower learning rate")


def apply_adapter(network: "nn.Module", folder: Path) -> None:
    """Put the adapter on the model. Raises ThunderError if it was trained on another model."""
    from mlx_lm.tuner.utils import load_adapters

    try:
        load_adapters(network, str(folder))
    except (ValueError, KeyError, AttributeError) as error:
        raise ThunderError(f"does not fit the model: {error}", where=str(folder), mend="run `./doit train`") from error


def measure(network: "nn.Module", examples: "Sequence[Example]", task: Task) -> dict[str, Any]:
    """{"loss" in nats per target token, "perplexity", "tokens", "dropped" rows too long}; no loss without a row."""
    from thunder_train.worker.feed import Feed, costs_of
    from thunder_train.worker.loop import evaluate
    from thunder_train.worker.ranks import Ranks

    fitting = [each for each in examples if len(each.tokens) <= task.max_seq_len]
    dropped = len(examples) - len(fitting)
    if not fitting:
        return {"loss": None, "perplexity": None, "tokens": 0, "dropped": dropped}
    costs = costs_of(network, fitting, task.batch_size * task.max_seq_len)
    feed = Feed(fitting, len(fitting), seed=0, rank=0, world=1, costs=costs)
    loss, tokens = evaluate(network, feed.validation(), Ranks(rank=0, size=1))
    perplexity = round(math.exp(min(loss, 700.0)), 6)
    return {"loss": round(loss, 6), "perplexity": perplexity, "tokens": tokens, "dropped": dropped}


def generate(network: "nn.Module", tokenizer: Any, examples: "Sequence[Example]", task: Task) -> list[str]:
    """The greedy answer to each example's prompt, without special tokens, in the examples' order."""
    from mlx_lm.generate import batch_generate

    network.eval()
    prompts = [list(each.tokens[: each.first_target]) for each in examples]
    answers = []
    for start in range(0, len(prompts), task.batch_size):
        batch = prompts[start : start + task.batch_size]
        sizes = {"prefill_batch_size": task.batch_size, "completion_batch_size": task.batch_size}
        response = batch_generate(network, tokenizer, batch, max_tokens=task.max_tokens, return_token_ids=True, **sizes)
        answers += [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in response.token_ids]
    return answers


def predict(row: dict[str, Any], base: str, adapter: str) -> dict[str, str]:
    """A line of predictions.jsonl."""
    kept = {name: row.get(name, "") for name in ("id", "partition", "asr_text", "reference_text")}
    return {**kept, "base": base, "adapter": adapter}


if __name__ == "__main__":
    enter(main)
