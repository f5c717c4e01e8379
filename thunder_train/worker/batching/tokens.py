"""Rows of train.jsonl or valid.jsonl as tokens, and which tokens are targets: the answers, with their end of turn.

A span (start, end) holds token positions, end excluded. targets.py finds the answers in a row's text, encoding.py their
tokens, read_back.py checks these; token_cache.py keeps them.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.core import files
from thunder_train.worker.batching import encoding, targets, token_cache
from thunder_train.worker.batching.examples import Example, Examples, Gathered
from thunder_train.worker.batching.read_back import HINTS, NOTHING, ReadBack
from thunder_train.worker.batching.targets import Passage
from thunder_train.worker.batching.token_cache import Cached
from thunder_train.worker.chat import Chat

TOGETHER = 1000
"""Rows that are encoded together, on all cores."""
EVERYTHING = "everything"
"""Of train_on: every token but the first is a target."""
LINES = 10
"""Most lines that a message about many rows names."""


@dataclass(frozen=True)
class Split:
    """The rows of one file. dropped: rows with an answer that is left out, too long; split: rows cut into several.

    notes: what the chat template leaves out of them.
    """

    examples: Examples
    dropped: int
    split: int = 0
    notes: tuple[str, ...] = ()

    def spread(self, rows: int) -> "Split":
        """So many of its rows, evenly spread; all for 0, or if there are no more."""
        count = len(self.examples)
        if not 0 < rows < count:
            return self
        return replace(self, examples=self.examples.take([number * count // rows for number in range(rows)]))

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(self.examples.lengths)

    @property
    def targets(self) -> int:
        """Targets of all rows."""
        return self.examples.targets


@dataclass(frozen=True)
class Policy:
    """max_seq_len: most tokens of a row. too_long: "refuse", "drop" or "split" longer ones. train_on: "last" or "all"
    answers of a row are targets, or everything.
    """

    max_seq_len: int
    too_long: str = "refuse"
    train_on: str = "last"


@dataclass(frozen=True)
class Tokenised:
    """All rows of a file in tokens, of any length. lines: of each example its line in the file, counted from 0; a line
    has several where each of its answers follows a prompt of its own.

    notes: (what the chat template leaves out, rows). problems: (line, error without a place) of each unusable row.
    lost: errors of all rows whose tokens are not their answers.
    """

    examples: Examples
    lines: tuple[int, ...]
    notes: tuple[tuple[str, int], ...] = ()
    problems: tuple[tuple[int, ThunderError], ...] = ()
    lost: tuple[ThunderError, ...] = ()


def read(path: Path, chat: Chat, policy: Policy, cache: Path | None = None, may_be_empty: bool = False) -> Split:
    """The rows of a JSONL file in tokens, none longer than the policy allows. cache: folder of cached tokens.

    Raises ThunderError listing every row that cannot be trained on, and unless may_be_empty for a file without usable
    rows.
    """
    rows = tokenise(path, chat, policy.train_on, cache)
    _raise_problems(rows, path)
    examples = rows.examples.whole_spans() if policy.train_on == EVERYTHING else rows.examples
    long = [number for number, length in enumerate(examples.lengths) if length > policy.max_seq_len]
    if long and policy.too_long == "refuse":
        raise _too_long(examples.take(long), path, policy.max_seq_len)
    notes = described(rows.notes)
    split = _cut(examples, policy, notes) if long else Split(examples, 0, notes=notes)
    if not split.examples and not may_be_empty:
        raise ThunderError("holds no row to use", where=str(path), hint="run `./doit data`, or raise --max-seq-len")
    return split


def read_all(path: Path, chat: Chat, train_on: str = "last", cache: Path | None = None) -> Examples:
    """Every row of a JSONL file in tokens, of any length. Raises ThunderError listing every unusable row."""
    rows = tokenise(path, chat, train_on, cache)
    _raise_problems(rows, path)
    return rows.examples


def _raise_problems(rows: Tokenised, path: Path) -> None:
    raise_all(grouped(rows.problems, path) + list(rows.lost))


def tokenise(path: Path, chat: Chat, train_on: str = "last", cache: Path | None = None) -> Tokenised:
    """Every row of a JSONL file in tokens, of any length. Raises ThunderError if the model is at fault.

    The ranks of a machine, an evaluation and `doit tokens` share what is cached.
    """
    place = token_cache.path_of(cache, path, chat)
    if cached := _cached(place, train_on):  # without the lock: the folder may be one that only others can write
        return cached
    with token_cache.alone(place) if place else nullcontext():
        if cached := _cached(place, train_on):
            return cached
        rows, is_whole = _tokenised(path, chat, train_on)
        # A file that was swapped since has another name.
        if place and not rows.problems and not rows.lost and place == token_cache.path_of(cache, path, chat):
            token_cache.save(place, Cached(rows.examples, rows.lines, is_whole, rows.notes))
    return rows


def _cached(place: Path | None, train_on: str) -> Tokenised | None:
    cached = token_cache.load(place) if place else None
    if not cached or not (cached.is_whole or train_on != "all"):
        return None
    if train_on == "all":
        return Tokenised(cached.examples, cached.lines, cached.notes)
    last = {line: number for number, line in enumerate(cached.lines)}
    return Tokenised(cached.examples.take(list(last.values())).last_spans(), tuple(last), cached.notes)


def _tokenised(path: Path, chat: Chat, train_on: str) -> tuple[Tokenised, bool]:
    """(the rows of a file, whether every answer is a target)."""
    check, examples, lines = ReadBack(chat), Gathered(), list[int]()
    notes, problems = Counter[str](), list[tuple[int, ThunderError]]()
    is_whole = True
    rows = enumerate(files.jsonl(path, hint="run `./doit data`"))
    while together := list(itertools.islice(rows, TOGETHER)):
        part = []
        for line, row in together:
            is_whole = is_whole and (train_on == "all" or not _has_several_answers(row))
            try:
                passages, left_out = _passages(row, chat, train_on)
            except ThunderError as problem:
                if problem.where:  # the model's fault, not this row's
                    raise
                problems.append((line, problem))
                continue
            notes.update(set(left_out))
            part += [(line, _row_id(row, f"{path}:{line + 1}"), each) for each in passages]
        for line, each in _examples(part, chat, check, problems):
            lines.append(line)
            examples.add(each)
    lost = tuple(check.problems(path))
    return Tokenised(examples.examples(), tuple(lines), tuple(notes.items()), tuple(problems), lost), is_whole


def _passages(row: Any, chat: Chat, train_on: str) -> tuple[list[Passage], list[str]]:
    passages, left_out = targets.passages(row, chat, train_on)
    try:
        for each in passages:
            each.text.encode()
    except UnicodeEncodeError:
        raise ThunderError("holds half of a character (a lone surrogate)", hint="correct the source") from None
    return passages, left_out


def _examples(
    part: Sequence[tuple[int, str, Passage]], chat: Chat, check: ReadBack, problems: list[tuple[int, ThunderError]]
) -> Iterator[tuple[int, Example]]:
    """(line, example) of each passage, read back. part: line, row id and passage of each."""
    answers, tokens = list[tuple[str, str]](), list[tuple[int, ...]]()
    encoded = encoding.encode([passage for _, _, passage in part], chat)
    for (line, row_id, passage), (ids, spans) in zip(part, encoded, strict=True):
        if spans[-1][0] >= spans[-1][1]:
            problems.append((line, ThunderError(NOTHING, hint=HINTS[NOTHING])))
            continue
        check.add_row(row_id, passage.text)
        for (start, end), (first, last) in zip(passage.targets, spans, strict=True):
            is_longer = passage.adds_end and end == len(passage.text)
            answers.append((row_id, passage.text[start:end]))
            # The first token of a plain text may be no target.
            begin = len(encoding.first_tokens(chat)) if passage.is_plain else first
            tokens.append(ids[begin : last - is_longer])
        yield line, Example(row_id, ids, spans)
    check.add(answers, tokens)


def _has_several_answers(row: Any) -> bool:
    messages = row.get("messages") if isinstance(row, dict) else None
    return targets.is_chat(messages) and sum(each["role"] == targets.ANSWER for each in messages or ()) > 1


def _row_id(row: dict[str, Any], place: str) -> str:
    return str(row.get("id", place))


def example(row: Any, chat: Chat, where: str, train_on: str = "last") -> Example:
    """A row in tokens. Raises ThunderError if it has no answer, or the chat template or the tokenizer does not fit it.

    With train_on "all", a row whose answers need prompts of their own gives only the last one.
    """
    check, problems = ReadBack(chat), list[tuple[int, ThunderError]]()
    try:
        passages, _ = _passages(row, chat, train_on)
    except ThunderError as problem:
        raise problem if problem.where else ThunderError(problem.what, where, problem.hint) from problem
    examples = list(_examples([(0, _row_id(row, where), each) for each in passages], chat, check, problems))
    raise_all([ThunderError(each.what, where, each.hint) for _, each in problems] + check.problems(Path(where)))
    return examples[-1][1]


def grouped(problems: Sequence[tuple[int, ThunderError]], path: Path) -> list[ThunderError]:
    """One error for all lines that have the same problem, in the order of the first lines."""
    lines: dict[tuple[str, str], list[int]] = {}
    for line, problem in problems:
        lines.setdefault((problem.what, problem.hint), []).append(line + 1)
    return [_at(what, hint, numbers, path) for (what, hint), numbers in lines.items()]


def _at(what: str, hint: str, lines: Sequence[int], path: Path) -> ThunderError:
    if len(lines) == 1:
        return ThunderError(what, f"{path}:{lines[0]}", hint)
    more = f" and {len(lines) - LINES:,} more" if len(lines) > LINES else ""
    listed = ", ".join(map(str, lines[:LINES]))
    return ThunderError(f"{what} ({len(lines):,} rows: lines {listed}{more})", str(path), hint)


def described(notes: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """Notes as lines of text."""
    return tuple(f"{note} ({count:,} row{'s' if count > 1 else ''})" for note, count in notes)


def _too_long(rows: Examples, path: Path, max_seq_len: int) -> ThunderError:
    more = f" and {len(rows) - LINES:,} more" if len(rows) > LINES else ""
    listed = ", ".join(f"{row.row_id} ({len(row.tokens)} tokens)" for row in rows[:LINES])
    return ThunderError(
        f"the answers of {len(rows)} rows would be cut at {max_seq_len} tokens: {listed}{more}",
        where=str(path),
        hint=f"set max_seq_len to {max(rows.lengths)}, or too_long to drop or split",
    )


def _cut(examples: Examples, policy: Policy, notes: tuple[str, ...]) -> Split:
    kept = Gathered()
    dropped = split = 0
    for each in examples:
        fits = len(each.tokens) <= policy.max_seq_len
        parts = [each] if fits else pieces(each, policy.max_seq_len) if policy.too_long == "split" else []
        for part in parts:
            kept.add(part)
        dropped += sum(part.targets for part in parts) < each.targets
        split += len(parts) > 1
    return Split(kept.examples(), dropped, split, notes)


def pieces(row: Example, max_seq_len: int) -> list[Example]:
    """A row that is too long as rows that fit: first the answers that fit, then pieces of the answer that is cut.

    Every piece has the whole prompt; later ones also have the end of the piece before, as context. Each token is a
    target exactly once. Answers whose prompt alone does not fit are left out.
    """
    whole = tuple(span for span in row.spans if span[1] <= max_seq_len)
    parts = [(row.tokens[: whole[-1][1]], whole)] if whole else []
    for start, end in (span for span in row.spans if span[0] < max_seq_len < span[1]):
        prompt, done = row.tokens[:start], start
        while done < end:
            # Half of the room is context: with less, a piece would not know how it begins; with more, most of its
            # tokens would be computed again without being targets.
            context = min(done - start, (max_seq_len - start) // 2)
            stop = min(end, done + max_seq_len - start - context)
            first = start + context
            parts.append((prompt + row.tokens[done - context : stop], ((first, first + stop - done),)))
            done = stop
    return [Example(f"{row.row_id}#{number}", *part) for number, part in enumerate(parts, start=1)]
