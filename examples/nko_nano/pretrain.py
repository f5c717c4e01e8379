"""The nano base trained: a character model of Gemma's architecture that knows the lexicon's words and can copy.

Four lessons, each a chat: `repeat` and `copy` say the text again (copy: in the very prompt of the recipe `nko-nano`),
`recite` says any sentence, `fill` says a sentence of which a piece is hidden. No lesson shows a recogniser's error, and
none a sentence of the data set (lexicon.py). All weights are trained. Texts begin short and grow as the loss falls:
copying long rows from the start teaches a model this small nothing.

Writes an mlx-lm folder as nano.py, and manifest.json: settings, hashes of code, lessons and weights, losses reached.
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
from thunder_train.core import files
from thunder_train.worker import nano
from thunder_train.worker.args import Parser
from thunder_train.worker.bootstrap import enter

if TYPE_CHECKING:
    import mlx.nn as nn

SYSTEM = "Correct it."
"""System message of the data set `nko-nano`."""
PARTITIONS = ("stable", "boundary", "uncertain", "recovery", "novelty")
LESSONS = {"copy": 0.4, "fill": 0.35, "recite": 0.25}
"""Share of each lesson once texts have their full length; before that `repeat`, which is shorter, stands for `copy`."""
FIRST, FULL, GROWTH = 6, 36, 3
"""Code points of the longest text: at the start, at the end, and how many more when the loss has fallen."""
LEARNT = 0.25
"""Nats per target of copying, smoothed, under which texts grow."""
GAP = "…"
"""Stands for one to four hidden letters."""

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Settings:
    """steps: optimizer steps; rows: of each step; learning_rate: AdamW's highest; seed: of weights and lessons."""

    steps: int
    rows: int
    learning_rate: float
    seed: int


class Lessons:
    """Rows without end, the same for the same seed. longest: code points of a text; digest: of all rows so far."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(f"lessons:{seed}")  # noqa: S311 (not for secrets)
        self._digest = hashlib.sha256()
        self.longest = FIRST

    @property
    def digest(self) -> str:
        """Hex sha256 of every row so far."""
        return self._digest.hexdigest()

    def batch(self, rows: int) -> tuple[str, list[Messages]]:
        """The next rows, all of one lesson, and its name."""
        lesson = self._draw.choices([*LESSONS], [*LESSONS.values()])[0]
        if lesson == "copy" and self.longest < FULL:
            lesson = "repeat"
        batch = [self._row(lesson) for _ in range(rows)]
        self._digest.update("".join(map(files.json_line, batch)).encode())
        return lesson, batch

    def _row(self, lesson: str) -> Messages:
        if lesson in ("repeat", "copy"):
            text = self._text()
            asked = text if lesson == "repeat" else f"Partition: {self._draw.choice(PARTITIONS)}\nHypothesis: {text}"
            turns = [("user", asked)] if lesson == "repeat" else [("system", SYSTEM), ("user", asked)]
        else:
            text = self._piece()
            turns = [("user", "Speak." if lesson == "recite" else f"Fill: {self._hide(text)}")]
        return [{"role": role, "content": content} for role, content in [*turns, ("assistant", text)]]

    def _text(self) -> str:
        """What is copied: letters at random, or a sentence, as it is or with letters changed at random."""
        letters = " ".join(lexicon.words())
        while True:
            if self._draw.random() < 0.4:
                length = self._draw.randint(2, self.longest)
                text = " ".join("".join(self._draw.choices(letters, k=length)).split()) or letters[0]
            else:
                text, changes = self._piece(), self._draw.choice((0, 0, 1, 2, 3))
                for _ in range(changes):
                    place = self._draw.randrange(len(text))
                    text = text[:place] + self._draw.choice(letters) + text[place + 1 :]
                text = " ".join(text.split()) or letters[0]
            if lexicon.is_for_base(text):
                return text

    def _piece(self) -> str:
        """A sentence, cut to the first words that are short enough; the cut may not give one that is kept back."""
        while True:
            words = lexicon.sentence(self._draw, for_base=True).split(" ")
            while len(words) > 1 and len(" ".join(words)) > self.longest:
                words.pop()
            text = " ".join(words)
            if lexicon.is_for_base(text):
                return text

    def _hide(self, text: str) -> str:
        """The text with one or two gaps."""
        for _ in range(self._draw.choice((1, 1, 2))):
            start = self._draw.randrange(len(text))
            stop = start + self._draw.randint(1, 4)
            text = text[:start] + GAP + text[stop:]
        return text


def train(network: "nn.Module", tokenizer: Any, settings: Settings) -> dict[str, Any]:
    """Train all weights; {"losses": lesson -> nats per target, smoothed, "longest", "lessons_sha256", "targets"}."""
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optim

    from thunder_train.worker.batching import batch as batches
    from thunder_train.worker.batching import tokens
    from thunder_train.worker.batching.plan import Pass
    from thunder_train.worker.train.step import schedule

    def mean_loss(model: "nn.Module", batch: Any) -> Any:
        return batches.loss_sum(model, batch) / batch.targets

    warmup = min(100, settings.steps // 10)
    optimizer = optim.AdamW(schedule("cosine", settings.learning_rate, settings.steps, warmup), betas=[0.9, 0.98])
    loss_and_gradients = nn.value_and_grad(network, mean_loss)
    losses: dict[str, float] = {}
    lessons, targets = Lessons(settings.seed), 0
    for step in range(1, settings.steps + 1):
        lesson, rows = lessons.batch(settings.rows)
        examples = [tokens.example({"messages": row}, tokenizer, lesson) for row in rows]
        width = max(len(each.tokens) for each in examples) - 1
        batch = batches.batch(examples, Pass(tuple((i,) for i in range(len(examples))), width))
        loss, gradients = loss_and_gradients(network, batch)
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        optimizer.update(network, gradients)
        mx.eval(network.parameters(), optimizer.state, loss)
        targets += batch.targets
        losses[lesson] = 0.9 * losses.get(lesson, loss.item()) + 0.1 * loss.item()
        if lesson == "repeat" and losses[lesson] < LEARNT:
            lessons.longest = min(FULL, lessons.longest + GROWTH)
            losses[lesson] = 1.0
        if step % 50 == 0:
            shown = ", ".join(f"{name} {value:.3f}" for name, value in sorted(losses.items()))
            print(f"step {step}: longest {lessons.longest}; {shown}", file=sys.stderr, flush=True)
    rounded = {name: round(value, 4) for name, value in sorted(losses.items())}
    return {"losses": rounded, "longest": lessons.longest, "lessons_sha256": lessons.digest, "targets": targets}


def make(folder: Path, shape: nano.Shape, settings: Settings) -> None:
    """Write the trained model's folder and its manifest. Raises ThunderError for a bad shape or a text never learnt."""
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
    files.write_bytes(folder / "model.safetensors", adapter.canonical(weights))
    manifest = {
        "schema": "thunder.pretrain/1",
        "settings": asdict(settings),
        "shape": asdict(shape),
        "lessons": LESSONS,
        "code": {
            Path(path).stem: files.code_digest(Path(path)) for path in (lexicon.__file__, nano.__file__, __file__)
        },
        "parameters": sum(tensor.size for tensor in weights.values()),
        "environment": environment(),
        "result": result,
        "files": {path.name: files.sha256(path) for path in sorted(folder.glob("*")) if path.name in WRITTEN},
    }
    files.write_json(folder / "manifest.json", json.loads(json.dumps(manifest)))


WRITTEN = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def main(argv: list[str]) -> None:
    """Make the base that the flags describe."""
    parser = Parser(prog="examples.nko_nano.pretrain", description="make the nano base that knows N'Ko words")
    parser.add_argument("--output", type=Path, required=True, help="folder to write: models/nko-nano-base")
    parser.add_argument("--layers", type=int, default=3, help="transformer blocks")
    parser.add_argument("--width", type=int, default=128, help="size of the residual stream")
    parser.add_argument("--heads", type=int, default=4, help="attention heads")
    parser.add_argument("--kv-heads", type=int, default=2, help="key and value heads")
    parser.add_argument("--hidden", type=int, default=256, help="width inside the MLP")
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps")
    parser.add_argument("--rows", type=int, default=32, help="rows of each step")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="the highest")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and lessons")
    flags = parser.parse_args(argv)
    if min(flags.steps, flags.rows) < 1:
        raise ThunderError("must be 1 or more", where="--steps, --rows")
    shape = nano.Shape(flags.layers, flags.width, flags.heads, flags.kv_heads, flags.hidden)
    make(flags.output, shape, Settings(flags.steps, flags.rows, flags.learning_rate, flags.seed))


if __name__ == "__main__":
    enter(main)
