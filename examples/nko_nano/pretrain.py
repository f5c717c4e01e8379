"""Pretrains the nko-nano base model: a small character model that knows the words of the lexicon and can copy a text.

Training rows are chats of four kinds ("lessons"): `repeat` and `copy` ask for the same text again (`copy` with the
prompt of the recipe `nko-nano`), `recite` asks for any sentence, `fill` for a sentence with hidden pieces. No lesson
shows an ASR error with its correction or a sentence of the data set (lexicon.is_for_base). All weights are trained.

Curriculum: texts are short at first and grow as the loss falls, because a model this small learns nothing from long
texts at the start.

Run as `python -m examples.nko_nano.pretrain`. Writes an mlx-lm folder (see thunder_train/worker/nano.py) and
manifest.json with the settings, the sha256 of code, rows and files, and the final losses.
"""

import hashlib
import json
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.nko_nano import lexicon
from thunder_train import ThunderError
from thunder_train.core import code_hash, files
from thunder_train.worker import nano
from thunder_train.worker.args import Parser
from thunder_train.worker.bootstrap import enter

if TYPE_CHECKING:
    import mlx.nn as nn

SYSTEM = "Correct it."
"""System message of the data set `nko-nano`."""
PARTITIONS = ("stable", "boundary", "uncertain", "recovery", "novelty")
LESSONS = {"copy": 0.4, "fill": 0.35, "recite": 0.25}
"""Share of each lesson. Until texts have their full length, `repeat`, whose prompt is shorter, replaces `copy`."""
SHORTEST_LIMIT, LONGEST_LIMIT, GROWTH = 6, 36, 3
"""Upper limit of text lengths in code points: at the start, at the end, and each increase."""
LEARNT = 0.25
"""Smoothed loss of `repeat`, in nats per target, below which the limit grows."""
GAP = "…"
"""Replaces one to four hidden letters."""
WRITTEN = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""Files of the model's folder besides manifest.json."""

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Settings:
    """steps: optimizer steps; rows: per step; learning_rate: peak value, AdamW; seed: of weights and rows."""

    steps: int
    rows: int
    learning_rate: float
    seed: int


class Lessons:
    """An endless stream of training rows that depends on the seed and on `longest`, the limit of text lengths."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"lessons:{seed}")  # noqa: S311 (not for secrets)
        self._digest = hashlib.sha256()
        self.longest = SHORTEST_LIMIT

    @property
    def digest(self) -> str:
        """Hex sha256 of every row so far."""
        return self._digest.hexdigest()

    def batch(self, rows: int) -> tuple[str, list[Messages]]:
        """The name of a random lesson, and the next rows, all of that lesson."""
        lesson = self._rng.choices([*LESSONS], [*LESSONS.values()])[0]
        if lesson == "copy" and self.longest < LONGEST_LIMIT:
            lesson = "repeat"
        batch = [self._row(lesson) for _ in range(rows)]
        self._digest.update("".join(map(files.json_line, batch)).encode())
        return lesson, batch

    def _row(self, lesson: str) -> Messages:
        if lesson == "repeat":
            answer = self._text()
            prompt = [("user", answer)]
        elif lesson == "copy":
            answer = self._text()
            user = f"Partition: {self._rng.choice(PARTITIONS)}\nHypothesis: {answer}"
            prompt = [("system", SYSTEM), ("user", user)]
        else:
            answer = self._piece()
            prompt = [("user", "Speak." if lesson == "recite" else f"Fill: {self._hide(answer)}")]
        return [{"role": role, "content": content} for role, content in [*prompt, ("assistant", answer)]]

    def _text(self) -> str:
        """A text to copy: random letters, or a sentence with up to three letters changed at random."""
        letters = " ".join(lexicon.words())
        while True:
            if self._rng.random() < 0.4:
                length = self._rng.randint(2, self.longest)
                text = " ".join("".join(self._rng.choices(letters, k=length)).split()) or letters[0]
            else:
                text, changes = self._piece(), self._rng.choice((0, 0, 1, 2, 3))
                for _ in range(changes):
                    place = self._rng.randrange(len(text))
                    text = text[:place] + self._rng.choice(letters) + text[place + 1 :]
                text = " ".join(text.split()) or letters[0]
            if lexicon.is_for_base(text):
                return text

    def _piece(self) -> str:
        """The first words of a sentence, as many as the limit allows; never a sentence of the data set."""
        while True:
            words = lexicon.sentence(self._rng, for_base=True).split(" ")
            while len(words) > 1 and len(" ".join(words)) > self.longest:
                words.pop()
            text = " ".join(words)
            if lexicon.is_for_base(text):
                return text

    def _hide(self, text: str) -> str:
        """The text with one or two gaps."""
        for _ in range(self._rng.choice((1, 1, 2))):
            start = self._rng.randrange(len(text))
            stop = start + self._rng.randint(1, 4)
            text = text[:start] + GAP + text[stop:]
        return text


def train(network: "nn.Module", tokenizer: Any, settings: Settings) -> dict[str, Any]:
    """Train all weights in place.

    Returns {"losses": lesson -> smoothed nats per target, "longest", "lessons_sha256", "targets"}.
    """
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optim

    from thunder_train.worker.train.step import schedule

    warmup = min(100, settings.steps // 10)
    optimizer = optim.AdamW(schedule("cosine", settings.learning_rate, settings.steps, warmup), betas=[0.9, 0.98])
    loss_and_gradients = nn.value_and_grad(network, _mean_loss)
    losses: dict[str, float] = {}
    lessons, targets = Lessons(settings.seed), 0
    for step in range(1, settings.steps + 1):
        lesson, rows = lessons.batch(settings.rows)
        batch = _padded_batch(rows, tokenizer, lesson)
        loss, gradients = loss_and_gradients(network, batch)
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        optimizer.update(network, gradients)
        mx.eval(network.parameters(), optimizer.state, loss)
        targets += batch.targets
        losses[lesson] = 0.9 * losses.get(lesson, loss.item()) + 0.1 * loss.item()
        if lesson == "repeat" and losses[lesson] < LEARNT:
            lessons.longest = min(LONGEST_LIMIT, lessons.longest + GROWTH)
            losses[lesson] = 1.0  # longer texts are harder: wait until the loss has fallen again
        if step % 50 == 0:
            progress = ", ".join(f"{name} {value:.3f}" for name, value in sorted(losses.items()))
            print(f"step {step}: longest {lessons.longest}; {progress}", file=sys.stderr, flush=True)
    rounded = {name: round(value, 4) for name, value in sorted(losses.items())}
    return {"losses": rounded, "longest": lessons.longest, "lessons_sha256": lessons.digest, "targets": targets}


def _padded_batch(rows: list[Messages], tokenizer: Any, lesson: str) -> Any:
    """One pass over all rows, padded to the longest; a row of n tokens is n - 1 wide, as its last is only a target."""
    from thunder_train.worker.batching import batch, tokens
    from thunder_train.worker.batching.plan import Pass
    from thunder_train.worker.chat import Chat

    chat = Chat(tokenizer)
    examples = [tokens.example({"messages": row}, chat, lesson) for row in rows]
    width = max(len(each.tokens) for each in examples) - 1
    return batch.batch(examples, Pass(tuple((i,) for i in range(len(examples))), width))


def _mean_loss(model: "nn.Module", batch: Any) -> Any:
    from thunder_train.worker.batching.batch import loss_sum

    return loss_sum(model, batch) / batch.targets


def make(folder: Path, shape: nano.Shape, settings: Settings) -> None:
    """Write the trained model's folder and manifest. Raises ThunderError for a bad shape or weights that diverged."""
    import numpy as np
    from mlx.utils import tree_flatten

    from thunder_train.worker import adapter, model
    from thunder_train.worker.bootstrap import environment

    nano.write(folder, shape, settings.seed)
    network, tokenizer = model.load(str(folder), "")
    result = train(network, tokenizer, settings)
    weights = {name: np.array(leaf) for name, leaf in tree_flatten(network.parameters())}
    if not all(np.isfinite(tensor).all() for tensor in weights.values()):
        raise ThunderError("the weights are not finite", where=str(folder), hint="lower --learning-rate")
    files.write_bytes(folder / "model.safetensors", adapter.canonical_bytes(weights))
    manifest = {
        "schema": "thunder.pretrain/1",
        "settings": asdict(settings),
        "shape": asdict(shape),
        "lessons": LESSONS,
        "code": {
            Path(path).stem: code_hash.code_digest(Path(path)) for path in (lexicon.__file__, nano.__file__, __file__)
        },
        "parameters": sum(tensor.size for tensor in weights.values()),
        "environment": environment(),
        "result": result,
        "files": {path.name: files.sha256(path) for path in sorted(folder.glob("*")) if path.name in WRITTEN},
    }
    files.write_json(folder / "manifest.json", json.loads(json.dumps(manifest)))


def main(argv: list[str]) -> None:
    """Train the model that the flags describe."""
    parser = Parser(prog="examples.nko_nano.pretrain", description="pretrain the base model of the recipe nko-nano")
    parser.add_argument("--output", type=Path, required=True, help="folder to write: models/nko-nano-base")
    parser.add_argument("--layers", type=int, default=3, help="transformer blocks")
    parser.add_argument("--width", type=int, default=128, help="size of the residual stream")
    parser.add_argument("--heads", type=int, default=4, help="attention heads")
    parser.add_argument("--kv-heads", type=int, default=2, help="key and value heads")
    parser.add_argument("--hidden", type=int, default=256, help="width inside the MLP")
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps")
    parser.add_argument("--rows", type=int, default=32, help="rows per step")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and rows")
    flags = parser.parse_args(argv)
    if min(flags.steps, flags.rows) < 1:
        raise ThunderError("must be 1 or more", where="--steps, --rows")
    shape = nano.Shape(flags.layers, flags.width, flags.heads, flags.kv_heads, flags.hidden)
    make(flags.output, shape, Settings(flags.steps, flags.rows, flags.learning_rate, flags.seed))


if __name__ == "__main__":
    enter(main)
