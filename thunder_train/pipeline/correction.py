"""New rows without references through a run's adapter and gate: `doit correct:<recipe>`.

Input: a file of a recogniser's rows.  Output: a JSON line for each of them, in their order, and a summary beside it.
The rows go to the ranks in parts of PART, by the run's own evaluate.sh, and wait on disk: memory holds one part.
"""

import itertools
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec

from thunder_train import ThunderError
from thunder_train.cluster import fetch, sync
from thunder_train.config.dataset import PROMPTED
from thunder_train.config.project import Recipe
from thunder_train.core import files, paths, speaker
from thunder_train.core.console import counted
from thunder_train.core.process import command
from thunder_train.data import new_rows, orthography, telemetry
from thunder_train.data.new_rows import NewRow
from thunder_train.evaluate import gate

SCHEMA = "thunder.corrected/1"
PART = 8192
"""Rows that are answered together, from longest to shortest."""
REASONS = 1000
"""Most different reasons that are counted: an external gate may give every row its own."""
OTHERS = "other reasons"
ACCEPTED, REJECTED, UNCHANGED = "accepted", "rejected", "unchanged"


@dataclass
class _Counts:
    """What a summary counts. asked: rows with a prompt; references: rows that came with one."""

    rows: int = 0
    asked: int = 0
    references: int = 0
    decisions: Counter[str] = field(default_factory=lambda: Counter({ACCEPTED: 0, REJECTED: 0, UNCHANGED: 0}))
    reasons: Counter[str] = field(default_factory=Counter)
    witnesses: int = 0

    def decide(self, line: dict[str, Any]) -> None:
        """Count a line of the output."""
        reason = line["reason"]
        self.decisions[line["decision"]] += 1
        self.reasons[reason if reason in self.reasons or len(self.reasons) < REASONS else OTHERS] += 1
        self.witnesses += "witness" in line


@dataclass(frozen=True)
class _Job:
    """One correction. folder: of its rows and answers, while it is unfinished."""

    recipe: Recipe
    source: str
    root: Path
    folder: Path
    counts: _Counts

    @property
    def rows(self) -> Path:
        """Every row, a `NewRow` a line. It lies apart from the parts, which alone go to the hosts."""
        return self.folder / "rows.jsonl"

    @property
    def parts(self) -> list[Path]:
        """The files of prompts."""
        return sorted((self.folder / "parts").glob("rows-*.jsonl"))


def correct(recipe: Recipe, source: str, out: Path, root: Path) -> dict[str, Any]:
    """Write the corrected rows to `out` and their summary beside it; returns the summary.

    source: a file, relative to root or absolute. Raises ThunderError with every problem of the file before any row is
    answered. Answers are kept: the same command goes on after a kill.
    """
    if not new_rows.has_prompts(recipe.dataset):
        what = f"its dataset {recipe.dataset.name} holds conversations, and no recogniser's texts to correct"
        raise ThunderError(what, recipe.file, f"`./doit chat:{recipe.name}` talks with its adapter")
    if out.resolve() == (root / source).resolve():
        raise ThunderError("is the file of rows itself", str(out), "give another --out")
    job = _Job(recipe, source, root, root / paths.correction(recipe.name), _Counts())
    digest = files.sha256(root / source)
    _write_rows(job)
    for note in _notes(job):
        speaker.say(f"correct:{recipe.name}: {note}")
    if job.counts.asked:
        _answer(job)
    files.write_lines(out, _lines(job))
    if files.sha256(root / source) != digest:
        raise ThunderError("changed while it was corrected", source, "leave it alone; run it again")
    summary = _summary(job, digest, out)
    files.write_json(summary_of(out), summary)
    shutil.rmtree(job.folder, ignore_errors=True)
    fetch.remove_folders(recipe, root, [paths.correction(recipe.name)])
    return summary


def summary_of(out: Path) -> Path:
    """The file of the summary of an output."""
    return out.with_name(f"{out.name}.json")


def _write_rows(job: _Job) -> None:
    """Write every row, and the parts of those that are asked."""
    for old in job.parts:
        old.unlink()
    rows = counted(new_rows.read(job.recipe.dataset, job.source, job.root), f"correct:{job.recipe.name}")
    files.write_lines(job.rows, _noted(job, rows))


def _noted(job: _Job, rows: Iterator[NewRow]) -> Iterator[bytes]:
    """Each row as a line. Full parts are written on the way."""
    encode, asked = msgspec.json.Encoder(order="deterministic").encode, list[NewRow]()
    for row in rows:
        job.counts.rows += 1
        job.counts.references += row.has_reference
        if not row.reason:
            asked.append(row)
        if len(asked) == PART:
            _write_part(job, asked)
            asked = []
        yield encode(msgspec.structs.replace(row, messages=())) + b"\n"
    if asked:
        _write_part(job, asked)


def _write_part(job: _Job, rows: list[NewRow]) -> None:
    """A file of prompts, in which what the recogniser wrote stands for the answer."""
    number, job.counts.asked = job.counts.asked // PART, job.counts.asked + len(rows)
    lines = (
        {
            "id": row.row_id,
            "line": row.line,
            "messages": [*msgspec.to_builtins(row.messages), {"role": "assistant", "content": row.hypothesis}],
        }
        for row in _in_order(rows)
    )
    files.write_text(job.folder / "parts" / f"rows-{number:05}.jsonl", "".join(map(files.json_line, lines)))


def _in_order(rows: list[NewRow]) -> list[NewRow]:
    """The rows of a part as a dataset orders them. Batches depend on it, and the last bits of an answer on batches."""
    return sorted(rows, key=lambda row: (row.row_id, row.line))


def _notes(job: _Job) -> Iterator[str]:
    counts, run = job.counts, job.root / paths.run(job.recipe.name)
    yield f"{counts.rows:,} rows, {counts.asked:,} of them to be answered"
    if counts.references:
        yield f"references are not used: {counts.references:,} of the rows have one"
    decision = files.read_json(run / "promotion.json")["decision"] if (run / "promotion.json").is_file() else ""
    if decision != "GO":
        what = f"is {decision}" if decision else "has no decision yet"
        yield f"the run {what}; {run}/report.md says why" if decision else f"the run {what}"


def _answer(job: _Job) -> None:
    """Have the ranks answer all parts, and bring the answers home."""
    recipe, run, folder = job.recipe, Path(paths.run(job.recipe.name)), paths.correction(job.recipe.name)
    parts = [f"{folder}/parts/{path.name}" for path in job.parts]
    for line in sync.lines(sync.sync(recipe, job.root, parts)):
        speaker.say(line)
    flags = {
        "--module": "thunder_train.worker.correct",
        "--log-dir": f"{run}/logs/correct",
        "--partial": f"{folder}/kept",
        "--rows": f"{folder}/parts",
        "--answers": f"{folder}/answers",
    }
    command(
        ["bash", str(run / "evaluate.sh"), *itertools.chain.from_iterable(flags.items())],
        where=f"correcting with {recipe.name}",
        hint="read the lines above; the same command goes on from the answers that were kept",
    )
    fetch.outputs(recipe, job.root, folder, tuple(_answers_of(Path(part)) for part in parts))


def _answers_of(part: Path) -> str:
    """The file of a part's answers, in the folder of the correction."""
    return f"answers/{part.name.replace('rows', 'answers', 1)}"


def _lines(job: _Job) -> Iterator[bytes]:
    """The lines of the output."""
    with open(job.rows, "rb") as file:
        rows = counted(_decided(job, file), f"correct:{job.recipe.name}")
        for line in rows:
            job.counts.decide(line)
            yield files.json_line(line).encode()


def _decided(job: _Job, file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Every row as a line of the output; a gate gets at most PART of them at a time."""
    decode, parts = msgspec.json.Decoder(NewRow).decode, iter(job.parts)
    waiting, answer_of = list[NewRow](), dict[int, dict[str, Any]]()
    for row in map(decode, file):
        is_of_next = not row.reason and row.line not in answer_of
        if is_of_next or len(waiting) == PART:
            yield from _judged(job, waiting, answer_of)
            waiting = []
        if is_of_next:
            answer_of = _read_answers(job, next(parts))
        waiting.append(row)
    yield from _judged(job, waiting, answer_of)


def _read_answers(job: _Job, part: Path) -> dict[int, dict[str, Any]]:
    """{line of a row: its answer} of a part."""
    asked, (_, *answers) = files.read_jsonl(part), files.read_jsonl(job.folder / _answers_of(part))
    return {row["line"]: answer for row, answer in zip(asked, answers, strict=True)}


def _judged(job: _Job, rows: list[NewRow], answer_of: dict[int, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The lines of some rows."""
    asked = _in_order([row for row in rows if not row.reason])
    answered = [row for row in asked if "text" in answer_of[row.line]]
    names = {row.line: name for row, name in zip(answered, _unique([row.row_id for row in answered]), strict=True)}
    predictions = [prediction(row, answer_of[row.line]["text"]) | {"id": names[row.line]} for row in answered]
    decision_of = {each["id"]: each for each in judge(job.recipe, predictions)}
    for row in rows:
        answer = answer_of.get(row.line, {"problem": row.reason})
        decision = decision_of.get(names.get(row.line, ""))
        yield _not_asked(row, answer["problem"]) if decision is None else _line(row, answer, decision)


def _unique(names: list[str]) -> list[str]:
    """The names, sorted, each repeated one with a number: a gate answers each row by its id."""
    taken, unique = set(names), list[str]()
    for name, group in itertools.groupby(names):
        numbers = itertools.count(2)
        for place, _ in enumerate(group):
            new = name if not place else next(each for n in numbers if (each := f"{name}#{n}") not in taken)
            taken.add(new)
            unique.append(new)
    return unique


def prediction(row: NewRow, proposal: str) -> dict[str, Any]:
    """What a gate is given of a row, by the names of predictions.jsonl."""
    return {
        "id": row.row_id,
        "partition": row.partition,
        "asr_text": row.hypothesis,
        "adapter": proposal,
        "telemetry": row.telemetry,
    }


def judge(recipe: Recipe, predictions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The decisions of the recipe's gate, as in an evaluation."""
    allowed = (telemetry.Allowed.of(each).declared for each in recipe.dataset.sources if each.kind in PROMPTED)
    names, where = telemetry.HYPOTHESIS_SIDE.union(*allowed), f"{recipe.file}: evaluate.gate.command"
    return gate.judge(predictions, recipe.evaluate.gate, where, names, orthography.of_dataset(recipe.dataset)).decisions


def word_of(decision: dict[str, Any]) -> str:
    """A gate's decision in a word: `unchanged` if the proposal is the recogniser's text."""
    return UNCHANGED if not decision["edits"] else ACCEPTED if decision["verdict"] == gate.ACCEPT else REJECTED


def _not_asked(row: NewRow, reason: str) -> dict[str, Any]:
    line = {"line": row.line, **row.keys, "partition": row.partition, "asr_text": row.asr_text}
    return line | {"proposal": None, "text": row.asr_text, "decision": UNCHANGED, "reason": reason}


def _line(row: NewRow, answer: dict[str, Any], decision: dict[str, Any]) -> dict[str, Any]:
    line = _not_asked(row, decision["reason"]) | {"proposal": answer["text"], "decision": word_of(decision)}
    line["text"] = decision["final"]
    if answer["finish"] != "stop":
        line["finish"] = answer["finish"]
    if decision["witness"] is not None:
        line["witness"] = decision["witness"]
    if "witness_problem" in decision:
        line["witness_problem"] = decision["witness_problem"]
    return line


def _summary(job: _Job, digest: str, out: Path) -> dict[str, Any]:
    """What was corrected, by what, and how it came out: no time, no place."""
    recipe, counts = job.recipe, job.counts
    policy = gate.policy_of(recipe.evaluate.gate, orthography.of_dataset(recipe.dataset))
    return {
        "schema": SCHEMA,
        "recipe": recipe.name,
        **_identity(job.root / paths.run(recipe.name)),
        "gate": policy | {"sha256": files.digest(policy)},
        "input": {"name": Path(job.source).name, "sha256": digest},
        "output": {"name": out.name, "sha256": files.sha256(out)},
        "rows": counts.rows,
        "asked": counts.asked,
        "references_ignored": counts.references,
        "decisions": dict(counts.decisions),
        "reasons": dict(counts.reasons),
        "witnesses": counts.witnesses,
    }


def _identity(run: Path) -> dict[str, Any]:
    """The adapter that answered, and the run whose manifest names it with the decision; "" if none does."""
    adapter = files.sha256(run / "adapter" / "adapters.safetensors")
    manifest = files.read_json(run / "manifest.json") if (run / "manifest.json").is_file() else {"outputs": []}
    is_its = any(each["sha256"] == adapter for each in manifest["outputs"])
    return {
        "adapter_sha256": adapter,
        "run_id": manifest["run_id"] if is_its else "",
        "promotion": manifest["promotion"]["decision"] if is_its else "",
    }
