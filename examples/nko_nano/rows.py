"""Makes the pairs of the data set `nko-nano`: a sentence of the lexicon, and a copy with simulated ASR errors.

Run as `python -m examples.nko_nano.rows`. Writes nko_nano_predictions.jsonl and nko_nano_references.jsonl in the ASR
row contract. There is no audio and no recogniser. The errors are of the kinds that recognisers of N'Ko make: a word
split, two words joined, a final nasal or a vowel lost, similar vowels or voiced and voiceless consonants confused, a
word repeated.
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
"""Numbers of errors in a row, each equally likely; a frequent number is listed more than once."""
MISJUDGED = 0.1
"""Share of rows with a random partition, as a real router misjudges some rows."""

Words = list[str]


def rows(count: int, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(predictions, references), `count` of each; no sentence occurs twice."""
    rng = random.Random(f"nko-nano:{seed}")  # noqa: S311 (not for secrets)
    seen: set[str] = set()
    predictions: list[dict[str, Any]] = []
    references: list[dict[str, Any]] = []
    while len(predictions) < count:
        text = lexicon.sentence(rng, for_base=False)
        if lexicon.normal(text) in seen:
            continue
        seen.add(lexicon.normal(text))
        name = f"nko-nano-{len(predictions) + 1:04}"
        predictions.append(_prediction(name, text, add_errors(text, rng.choice(ERRORS), rng), rng))
        references.append({"feat_id": name, "audio_path": f"{name}.wav", "reference_text": text})
    return predictions, references


def add_errors(text: str, errors: int, rng: random.Random) -> str:
    """A text with up to this number of errors, each in another word; then two other words may be joined.

    No error turns a word into another word of the lexicon, so every error can be recognised from the vocabulary alone.
    """
    lexicon_words, heard = set(lexicon.words()), text.split(" ")
    changed_places: set[int] = set()
    for _ in range(20 * errors):  # some words cannot have some kinds of errors
        if len(changed_places) >= errors:
            break
        place = rng.randrange(len(heard))
        if place in changed_places:
            continue
        changed = rng.choice(KINDS)(heard[place], rng)
        if changed and not lexicon_words & set(changed.split(" ")) - {heard[place]}:
            heard[place] = changed
            changed_places.add(place)
    return _join_some(heard, changed_places, lexicon_words, rng)


def _join_some(heard: Words, changed_places: set[int], lexicon_words: set[str], rng: random.Random) -> str:
    """The words as text; if it has errors, two unchanged neighbours are sometimes joined."""
    pairs = zip(range(len(heard)), heard, heard[1:], strict=False)
    joinable = [
        place for place, a, b in pairs if not changed_places & {place, place + 1} and a + b not in lexicon_words
    ]
    if changed_places and joinable and rng.random() < 0.35:
        place = rng.choice(joinable)
        heard = [*heard[:place], heard[place] + heard[place + 1], *heard[place + 2 :]]
    return " ".join(heard)


def _swap(table: dict[str, str]) -> Callable[[str, random.Random], str]:
    """A kind of error that replaces one letter by the table."""

    def change(word: str, rng: random.Random) -> str:
        places = [place for place, letter in enumerate(word) if letter in table]
        if not places:
            return ""
        place = rng.choice(places)
        return word[:place] + table[word[place]] + word[place + 1 :]

    return change


def _lose_nasal(word: str, _: random.Random) -> str:
    return word[:-1] if len(word) > 2 and word.endswith(NASAL) else ""


def _lose_vowel(word: str, rng: random.Random) -> str:
    places = [place for place, letter in enumerate(word) if letter in VOWELS and place]
    place = rng.choice(places) if places and len(word) > 3 else 0
    return word[:place] + word[place + 1 :] if place else ""


def _split(word: str, rng: random.Random) -> str:
    place = rng.randrange(2, len(word) - 1) if len(word) > 3 else 0
    return f"{word[:place]} {word[place:]}" if place else ""


def _repeat(word: str, _: random.Random) -> str:
    return f"{word} {word}"


SHARES = {
    _swap(VOWELS): 4,
    _swap(VOICES): 2,
    _lose_nasal: 3,
    _lose_vowel: 1,
    _split: 3,
    _repeat: 1,
}
KINDS = [kind for kind, share in SHARES.items() for _ in range(share)]
"""Kinds of errors; a frequent kind is listed more than once. Each gives "" for a word that cannot have the error."""


def _prediction(name: str, reference: str, heard: str, rng: random.Random) -> dict[str, Any]:
    """A row of the contract. Confidence and trajectory depend on the number of errors, plus noise, as in real rows."""
    edits = Levenshtein.distance(heard, reference)
    has_repetition = any(a == b for a, b in zip(heard.split(" "), heard.split(" ")[1:], strict=False))
    partition = "recovery" if has_repetition else "stable" if not edits else "boundary" if edits == 1 else "uncertain"
    if rng.random() < MISJUDGED:
        partition = rng.choice(("stable", "boundary", "uncertain", "novelty"))
    doubt = edits / len(reference) + rng.uniform(0.0, 0.1)
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
