"""Whether the tokens of answers are the answers: they are decoded and compared, and what was lost is explained.

A tokenizer that knows no letter of a script gives <unk>, or nothing. Such a training looks well, for nothing is easier
to predict. So it is refused.
"""

import functools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from thunder_train import ThunderError
from thunder_train.core.text import code_point, escaped, nfc
from thunder_train.worker.batching.encoding import is_fast
from thunder_train.worker.chat import Chat

LETTERS, ROWS = 10, 5
"""Most letters and rows that a message names."""
BLANK = "\u2581"
"""How SentencePiece writes a blank."""
AS_IT_IS = "TokenizersBackend"
"""The class of transformers that takes tokenizer.json as it is."""
HINTS = {
    "the tokenizer knows no token for letters and gives <unk>": "use a base model whose vocabulary has the script",
    "the tokenizer gives no token for letters": "use a base model whose vocabulary has the script",
    "the tokenizer's normalizer changes letters": "use another base model, or write the answers as it does",
    "the tokenizer's tokens are decoded as other text": "look at decoder and pre_tokenizer in tokenizer.json",
}
UNKNOWN, NOTHING, NORMALISED, OTHERWISE = HINTS


@dataclass
class Loss:
    """What is lost for one reason. rows: ids; letters: how often each is lost; added: what came in their place."""

    rows: dict[str, None] = field(default_factory=dict)
    letters: Counter[str] = field(default_factory=Counter)
    added: Counter[str] = field(default_factory=Counter)


class ReadBack:
    """Compares the answers of a file with their tokens."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self._losses: dict[str, Loss] = {}

    def add(self, answers: Sequence[tuple[str, str]], tokens: Sequence[Sequence[int]]) -> None:
        """Compare some answers. answers: (row id, text) of each."""
        for (row_id, text), ids, decoded in zip(answers, tokens, self._decoded(tokens), strict=True):
            if _is_same(decoded, text) or self._is_of_other_class(row_id):
                continue
            loss = self._losses.setdefault(self._reason(text, ids, decoded), Loss())
            loss.rows[row_id] = None
            loss.letters += Counter(nfc(text)) - Counter(nfc(decoded))
            loss.added += Counter(nfc(decoded)) - Counter(nfc(text))

    def add_row(self, row_id: str, text: str) -> None:
        """Compare a whole row with tokenizer.json, if transformers replaced parts of that.

        Its tokens decode well, but the base never saw such: of the prompt, too.
        """
        file = self._file
        if file is not None and file.encode(text, add_special_tokens=False).ids != self.chat.encode(text):
            self._losses.setdefault(self._class_reason, Loss()).rows[row_id] = None

    def _is_of_other_class(self, row_id: str) -> bool:
        return self._file is not None and row_id in self._losses.get(self._class_reason, Loss()).rows

    def problems(self, path: Path) -> list[ThunderError]:
        """What was lost, one error for each reason."""
        hints = HINTS | {self._class_reason: self._class_hint()} if self._file else HINTS
        return [
            ThunderError(_described(reason, loss), where=str(path), hint=hints[reason])
            for reason, loss in self._losses.items()
        ]

    def _decoded(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        if is_fast(self.chat):
            return list(self.chat.wrapped.backend_tokenizer.decode_batch(list(map(list, tokens)), False))
        decode = self.chat.tokenizer.decode
        return [decode(list(ids), clean_up_tokenization_spaces=False) for ids in tokens]

    def _reason(self, text: str, ids: Sequence[int], decoded: str) -> str:
        tokenizer = self.chat.wrapped
        if tokenizer.unk_token_id in ids and str(tokenizer.unk_token) not in text:
            return UNKNOWN
        normalizer = tokenizer.backend_tokenizer.normalizer if is_fast(self.chat) else None
        written = normalizer.normalize_str(text) if normalizer else text
        if not _is_same(written.replace(BLANK, " "), text.replace(BLANK, " ")):
            return NORMALISED
        return OTHERWISE if Counter(nfc(decoded)) - Counter(nfc(text)) else NOTHING

    @cached_property
    def _file(self) -> Tokenizer | None:
        tokenizer = self.chat.wrapped
        return _file(str(tokenizer.name_or_path), type(tokenizer).__name__) if is_fast(self.chat) else None

    @property
    def _class_reason(self) -> str:
        name = type(self.chat.wrapped).__name__
        return f"transformers loads the tokenizer as {name}, which gives other tokens than tokenizer.json"

    def _class_hint(self) -> str:
        """The edit with which transformers takes tokenizer.json as it is."""
        edit = f'"tokenizer_class": "{AS_IT_IS}"'
        kind = _json(Path(str(self.chat.wrapped.name_or_path)) / "config.json").get("model_type")
        if kind in _classes_forced():
            edit += f', "auto_map": {{"AutoTokenizer": [null, "{AS_IT_IS}"]}}'
        return f"write {edit} into tokenizer_config.json"


@functools.lru_cache(maxsize=2)
def _file(folder: str, loaded: str) -> Tokenizer | None:
    """The tokenizer of tokenizer.json, if transformers loaded another class than tokenizer_config.json names."""
    path = Path(folder) / "tokenizer.json"
    named = str(_json(path.with_name("tokenizer_config.json")).get("tokenizer_class", "")).removesuffix("Fast")
    is_named = loaded.removesuffix("Fast") in (named, AS_IT_IS)
    return None if is_named or not path.is_file() else Tokenizer.from_file(str(path))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _classes_forced() -> set[str]:
    """Model types for which transformers takes a class of its own, whatever tokenizer_config.json names."""
    from transformers.models.auto import tokenization_auto

    return getattr(tokenization_auto, "MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS", set())


def _is_same(one: str, other: str) -> bool:
    """Whether two texts are equal but for the blank that a tokenizer puts before every text. NFC changes no letter."""
    one, other = nfc(one), nfc(other)
    return one in (other, f" {other}") or f" {one}" == other


def _described(reason: str, loss: Loss) -> str:
    rows = list(loss.rows)
    more = f" and {len(rows) - ROWS:,} more" if len(rows) > ROWS else ""
    listed = f"{len(rows):,} row{'s' if len(rows) > 1 else ''}: {', '.join(map(escaped, rows[:ROWS]))}{more}"
    lost = f"; lost: {_letters(loss.letters)}" if loss.letters else ""
    added = f"; instead: {_letters(loss.added)}" if loss.added and reason != UNKNOWN else ""
    return f"{reason}, in {'the answers of ' * bool(loss.letters or loss.added)}{listed}{lost}{added}"


def _letters(counts: Counter[str]) -> str:
    """The most frequent letters with their code points and numbers."""
    shown = [
        f"{escaped(letter) if letter.isprintable() else ''} {code_point(letter)} ({count:,})".strip()
        for letter, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:LETTERS]
    ]
    return ", ".join(shown) + (f" and {len(counts) - LETTERS} more" if len(counts) > LETTERS else "")
