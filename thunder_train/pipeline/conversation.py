"""A person's questions to a run's base model and adapter: `doit chat:<recipe>`.

Input: a text.  Output: the answer of each; where the dataset corrects a recogniser's texts, the gate's decision too.
One process on this machine answers, whatever the recipe's cluster is.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import msgspec

from thunder_train import ThunderError
from thunder_train.agent.main import usable_memory
from thunder_train.config.project import Recipe
from thunder_train.core import blas, characters, files, paths, process
from thunder_train.data import new_rows, orthography
from thunder_train.data.examples import Composer
from thunder_train.data.new_rows import NewRow
from thunder_train.launch import fit, scripts
from thunder_train.pipeline import correction

LAUNCHER_FLAGS = (*fit.LAUNCHER_FLAGS, "--module", "--weights")
"""Flags of evaluate.sh that one process does not take."""
Message = dict[str, str]


class Reply(NamedTuple):
    """An answer. finish: how it ended, as in predictions.jsonl. problem: why there is none, or ""."""

    text: str = ""
    finish: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Turn:
    """What came of a person's text. replies: by condition. problem: why it was not asked, or "".

    decision: the gate's on the adapter's answer, of a dataset with a gate: {"decision", "reason", "text"}.
    """

    replies: dict[str, Reply] = field(default_factory=dict)
    decision: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


class Worker:
    """The process that answers. Its requests and answers are lines of JSON."""

    def __init__(self, recipe: Recipe, child: "subprocess.Popen[bytes]") -> None:
        self.recipe, self.child = recipe, child
        self._requests, self._answers = cast(tuple[IO[bytes], IO[bytes]], (child.stdin, child.stdout))
        self._read()  # until the model is loaded

    def ask(self, messages: list[Message], condition: str, max_tokens: int) -> Reply:
        """The answer of a condition. Raises ThunderError if the process has ended."""
        request = {"messages": messages, "condition": condition, "max_tokens": max_tokens}
        with contextlib.suppress(BrokenPipeError):  # reading says how it ended
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
        return Reply(**self._read())

    def _read(self) -> dict[str, str]:
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise ThunderError(process.failure(self.child.wait()), f"chat:{self.recipe.name}", "read the lines above")
        answer: dict[str, str] = json.loads(line)
        return answer


class Conversation:
    """A conversation with a run. conditions: who answers. max_tokens: of an answer; 0: as many as in an evaluation."""

    def __init__(self, worker: Worker, root: Path, conditions: tuple[str, ...], max_tokens: int) -> None:
        self.worker, self.conditions, self.max_tokens = worker, conditions, max_tokens
        dataset = worker.recipe.dataset
        self._composer = Composer(dataset, root) if new_rows.has_prompts(dataset) else None
        self._table, self._system = orthography.of_dataset(dataset), dataset.system
        self._histories: dict[str, list[Message]] = {}
        self.begin_anew()

    @property
    def corrects(self) -> bool:
        """Whether a text is a recogniser's, to be corrected alone; else it is one more turn of a conversation."""
        return self._composer is not None

    def begin_anew(self) -> None:
        """Forget the turns so far."""
        first = [{"role": "system", "content": self._system}] if self._system else []
        self._histories = {condition: [*first] for condition in self.conditions}

    def say(self, text: str) -> Turn:
        """What base and adapter answer."""
        return self._corrected(self._composer, text) if self._composer else self._answered(text)

    def _corrected(self, composer: Composer, text: str) -> Turn:
        row = new_rows.of_text(composer, text)
        if row.reason:
            return Turn(problem=row.reason)
        messages: list[Message] = msgspec.to_builtins(row.messages)
        replies = {each: self.worker.ask(messages, each, self.max_tokens) for each in self.conditions}
        return Turn(replies, self._decision(row, replies.get("adapter", Reply(problem="not asked"))))

    def _decision(self, row: NewRow, reply: Reply) -> dict[str, Any]:
        if reply.problem:
            return {}
        (decision,) = correction.judge(self.worker.recipe, [correction.prediction(row, reply.text)])
        return {"decision": correction.word_of(decision), "reason": decision["reason"], "text": decision["final"]}

    def _answered(self, text: str) -> Turn:
        text = characters.cleaned(text, self._table, is_prose=True)
        if not text.strip():
            return Turn(problem="there is nothing to answer")
        replies = {}
        for condition, history in self._histories.items():
            messages = [*history, {"role": "user", "content": text}]
            reply = replies[condition] = self.worker.ask(messages, condition, self.max_tokens)
            if not reply.problem:
                history[:] = [*messages, {"role": "assistant", "content": reply.text}]
        return Turn(replies)


@contextlib.contextmanager
def opened(recipe: Recipe, root: Path, conditions: tuple[str, ...], max_tokens: int) -> Iterator[Conversation]:
    """A conversation; its process ends with the block. Raises ThunderError if the base does not fit this machine."""
    _check_memory(recipe, root)
    blas.check()
    flags = [str(part) for flag in scripts.evaluate_flags(recipe) if flag[0] not in LAUNCHER_FLAGS for part in flag]
    argv = [sys.executable, "-m", "thunder_train.worker.converse", *flags]
    # Its stdin is for questions, not for a sign that this process has ended.
    environment = {name: text for name, text in os.environ.items() if name != "THUNDER_STDIN"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with process.started(argv, cwd=root, env=environment, **pipes) as child:
        yield Conversation(Worker(recipe, child), root, conditions, max_tokens)


def _check_memory(recipe: Recipe, root: Path) -> None:
    """Refuse a base whose weights alone this machine cannot hold."""
    lock = files.read_json(root / paths.model_lock(recipe.model.name), hint=f"run `./doit model:{recipe.model.name}`")
    weights = sum(each["bytes"] for each in lock["files"] if each["path"].endswith(".safetensors"))
    if weights > usable_memory():
        what = f"its weights take {fit.size(weights)}, and this machine has {fit.size(usable_memory())} of memory"
        raise ThunderError(
            what, f"model {recipe.model.name}", "chat on a machine with more memory; one process answers"
        )
