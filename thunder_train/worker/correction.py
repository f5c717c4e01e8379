"""An adapter's answers to rows without a reference: those that an evaluation would give to the same rows.

Input: rows-N.jsonl, ChatML rows whose last message, what the recogniser wrote, stands for the answer.
Output: answers-N.jsonl, a header with everything that decides the answers, then a line per row. A part that stands
there is not answered again; of the part that a kill interrupted, the kept batches are not. Memory holds one part.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker import evaluation, ranks, saved_adapter
from thunder_train.worker.batching import tokens
from thunder_train.worker.evaluate_args import Correction
from thunder_train.worker.evaluation import Opened, Question
from thunder_train.worker.kept_answers import KeptAnswers
from thunder_train.worker.ranks import Ranks

SCHEMA = "thunder.correction/1"
CONDITION = "adapter"
PROBLEM = "problem"
"""In the place of an answer: why the row has none."""


def correct(task: Correction, adapter: Path, group: Ranks, tick: Callable[[], None]) -> None:
    """Answer every part, in order; rank 0 writes the answers. adapter: its folder. tick: called on progress."""
    inputs = evaluation.identity(task, adapter)
    ready: Opened | None = None
    parts, answered = sorted(task.rows.glob("rows-*.jsonl")), 0
    for path in parts:
        of_part = inputs | {"--rows": files.sha256(path)[:16]}
        ranks.check_identity(of_part, group, "correct")
        target = task.answers / path.name.replace("rows", "answers", 1)
        count = _count(target, of_part, group)
        if count is None:
            if ready is None:
                ready = evaluation.opened(task)
                saved_adapter.put_on(ready.network, adapter)
                ready.network.eval()  # no dropout
            lines = _answer(task, ready, path, of_part, group, tick)
            count = len(lines)
            if group.rank == 0:
                _write(target, of_part, lines)
        tick()
        answered += count
        if group.rank == 0 and len(parts) > 1:
            print(f"{answered:,} rows answered, part {parts.index(path) + 1} of {len(parts)}", flush=True)


def _count(target: Path, inputs: Mapping[str, str], group: Ranks) -> int | None:
    """The number of answers in rank 0's file of these inputs, on every rank; None if it has no such file."""
    mine = None
    if group.rank == 0 and target.is_file():
        try:
            header, *lines = files.read_jsonl(target)
            if header["identity"] == inputs:
                if header["digest"] != files.digest(lines):
                    raise ValueError(target)
                mine = str(len(lines)).encode()
        except (ValueError, KeyError, TypeError, ThunderError):
            print(f"warning: {target}: damaged; its rows are answered again", file=sys.stderr)
    count = ranks.broadcast(mine, group)
    return None if count is None else int(count)


def _write(target: Path, inputs: Mapping[str, str], lines: list[dict[str, Any]]) -> None:
    header = {"schema": SCHEMA, "identity": dict(inputs), "digest": files.digest(lines)}
    files.write_text(target, "".join(map(files.json_line, [header, *lines])))


def _answer(
    task: Correction, ready: Opened, path: Path, inputs: Mapping[str, str], group: Ranks, tick: Callable[[], None]
) -> list[dict[str, Any]]:
    """The answer to each row of a part, or why it has none."""
    asked = questions(path, ready, task.max_seq_len)
    kept = KeptAnswers(task.partial if group.rank == 0 else None, inputs)
    session = ready.session(task.batch_size, group, kept, tick)
    answers = iter(evaluation.answer_all(session, [each for each in asked if isinstance(each, Question)], CONDITION))
    return [asdict(next(answers)) if isinstance(each, Question) else {PROBLEM: each} for each in asked]


def questions(path: Path, ready: Opened, max_seq_len: int) -> list[Question | str]:
    """Each row of a file as a question, or why it cannot be asked. max_seq_len: most tokens of a prompt."""
    rows = files.read_jsonl(path)
    read = tokens.tokenise(path, ready.spoken)
    asked: list[Question | str] = ["it has no tokens"] * len(rows)
    for line, problem in read.problems:
        asked[line] = problem.what
    for line, each in zip(read.lines, read.examples, strict=True):
        prompt = list(each.tokens[: each.first_target])
        is_long = len(prompt) > max_seq_len
        too_long = f"its prompt has {len(prompt):,} tokens, more than train.max_seq_len, {max_seq_len:,}"
        asked[line] = too_long if is_long else Question(rows[line], prompt, [])
    return asked
