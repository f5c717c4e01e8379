"""The pairs of the data set `nko-nano`: a sentence of the lexicon, and what a made-up recogniser heard.

Writes nko_nano_predictions.jsonl and nko_nano_references.jsonl in the ASR row contract. No audio and no recogniser
stand behind them. The errors are of the kinds that recognisers of N'Ko make: a word split or two run together, a final
nasal or a vowel lost, neighbouring vowels or voiced and voiceless consonants taken for each other, a word said twice.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

from examples.nko_nano import lexicon
from examples.nko_nano.lexicon import nko
from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker.args import Parser
from thunder_train.worker.bootstrap import enter

PREDICTIONS, REFERENCES = "nko_nano_predictions.jsonl", "nko_nano_references.jsonl"
VOWELS = {nko(a): nko(b) for a, b in ("ɛe", "ei", "aɛ", "oɔ", "ɔo", "uo", "ie")}
VOICES = {nko(a): nko(b) for a, b in ("gk", "kg", "bp", "pb", "dt", "td")}
NASAL = nko("n")
ERRORS = (0, 0, 1, 1, 1, 1, 2, 2, 3)
"""How many errors a row gets: one of these."""
MISJUDGED = 0.1
"""Share of rows whose partition does not tell how many errors they have."""

Words = list[str]


def rows(count: int, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(predictions, references), no two of them of the same sentence."""
    draw = random.Random(f"nko-nano:{seed}")  # noqa: S311 (not for secrets)
    seen: set[str] = set()
    predictions: list[dict[str, Any]] = []
    references: list[dict[str, Any]] = []
    while len(predictions) < count:
        text = lexicon.sentence(draw, for_base=False)
        if lexicon.normal(text) in seen:
            continue
        seen.add(lexicon.normal(text))
        name = f"nko-nano-{len(predictions) + 1:04}"
        predictions.append(_prediction(name, text, hear(text, draw.choice(ERRORS), draw), draw))
        references.append({"feat_id": name, "audio_path": f"{name}.wav", "reference_text": text})
    return predictions, references


def hear(text: str, errors: int, draw: random.Random) -> str:
    """The text with errors, each in words that no other has touched.

    No error makes another word of the lexicon, so that each can be seen by who knows the words.
    """
    known, heard = set(lexicon.words()), text.split(" ")
    touched: set[int] = set()
    for _ in range(20 * errors):
        if len(touched) >= errors:
            break
        place = draw.randrange(len(heard))
        if place in touched:
            continue
        changed = draw.choice(KINDS)(heard[place], draw)
        if changed and not known & set(changed.split(" ")) - {heard[place]}:
            heard[place] = changed
            touched.add(place)
    return _run_together(heard, touched, known, draw)


def _run_together(heard: Words, touched: set[int], known: set[str], draw: random.Random) -> str:
    """The words; where there are errors, sometimes two that none has touched are joined."""
    pairs = zip(range(len(heard)), heard, heard[1:], strict=False)
    clean = [place for place, a, b in pairs if not touched & {place, place + 1} and a + b not in known]
    if touched and clean and draw.random() < 0.35:
        place = draw.choice(clean)
        heard = [*heard[:place], heard[place] + heard[place + 1], *heard[place + 2 :]]
    return " ".join(heard)


def _swap(table: dict[str, str]) -> Callable[[str, random.Random], str]:
    def change(word: str, draw: random.Random) -> str:
        places = [place for place, letter in enumerate(word) if letter in table]
        if not places:
            return ""
        place = draw.choice(places)
        return word[:place] + table[word[place]] + word[place + 1 :]

    return change


def _lose_nasal(word: str, _: random.Random) -> str:
    return word[:-1] if len(word) > 2 and word.endswith(NASAL) else ""


def _lose_vowel(word: str, draw: random.Random) -> str:
    places = [place for place, letter in enumerate(word) if letter in VOWELS and place]
    place = draw.choice(places) if places and len(word) > 3 else 0
    return word[:place] + word[place + 1 :] if place else ""


def _split(word: str, draw: random.Random) -> str:
    place = draw.randrange(2, len(word) - 1) if len(word) > 3 else 0
    return f"{word[:place]} {word[place:]}" if place else ""


def _say_twice(word: str, _: random.Random) -> str:
    return f"{word} {word}"


SHARES = {
    _swap(VOWELS): 4,
    _swap(VOICES): 2,
    _lose_nasal: 3,
    _lose_vowel: 1,
    _split: 3,
    _say_twice: 1,
}
KINDS = [kind for kind, share in SHARES.items() for _ in range(share)]
"""Kinds of errors, frequent ones more than once."""


def _prediction(name: str, reference: str, heard: str, draw: random.Random) -> dict[str, Any]:
    """A row of the contract. Confidence and trajectory follow the number of errors, roughly, as telemetry would."""
    edits = Levenshtein.distance(heard, reference)
    twice = any(a == b for a, b in zip(heard.split(" "), heard.split(" ")[1:], strict=False))
    partition = "recovery" if twice else "stable" if not edits else "boundary" if edits == 1 else "uncertain"
    if draw.random() < MISJUDGED:
        partition = draw.choice(("stable", "boundary", "uncertain", "novelty"))
    doubt = edits / len(reference) + draw.uniform(0.0, 0.1)
    return {
        "feat_id": name,
        "audio_path": f"{name}.wav",
        "split": "unsplit",
        "script": "nko",
        "mode": "synthetic_noise",
        "asr_text": heard,
        "ctc_confidence": round(max(0.05, 0.98 - 2 * doubt), 3),
        "cer_edits": edits,
        "trajectory_scalars": {"velocity": round(0.2 + doubt, 3), "jerk": round(0.1 + 2 * doubt, 3)},
        "partition": partition,
    }


def main(argv: list[str]) -> None:
    """Write both files into a folder."""
    parser = Parser(prog="examples.nko_nano.rows", description="make the pairs of the data set nko-nano")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into: data/sources")
    parser.add_argument("--rows", type=int, default=1000, help="pairs")
    parser.add_argument("--seed", type=int, default=0, help="seed of sentences and errors")
    flags = parser.parse_args(argv)
    if flags.rows < 1:
        raise ThunderError(f"must be 1 or more, not {flags.rows}", where="--rows")
    for name, lines in zip((PREDICTIONS, REFERENCES), rows(flags.rows, flags.seed), strict=True):
        files.write_text(flags.output / name, "".join(map(files.json_line, lines)))


if __name__ == "__main__":
    enter(main)
