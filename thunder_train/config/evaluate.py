"""The keys of [evaluate], its gate and its probe: type, bounds, unit, default and help of each, stated only here."""
# ruff: noqa: RUF009  (a call per key is how keys are declared)

from dataclasses import dataclass
from typing import Any

from thunder_train.config.fields import SEED_MAX, nested, real, text, texts, whole

CER_CODEPOINT = "cer-codepoint-nfc-pooled"
CER_CLUSTER = "cer-cluster-nfc-pooled"
CER_TONELESS = "cer-toneless-nfc-pooled"
CER_SPACELESS_RAW = "cer-spaceless-raw-pooled"
CER_CODEPOINT_RAW_CLAMPED = "cer-codepoint-raw-clamped-per-row"
CER_CODEPOINT_RAW = "cer-codepoint-raw-per-row"
WER = "wer-nfc-pooled"
PROFILES = (
    CER_CODEPOINT,
    CER_CLUSTER,
    CER_TONELESS,
    CER_SPACELESS_RAW,
    CER_CODEPOINT_RAW_CLAMPED,
    CER_CODEPOINT_RAW,
    WER,
)
"""Names of the error rates, the default first; evaluate/error_rates.py defines what each counts."""


def _share(default: float, help: str) -> Any:  # noqa: A002  (the name that core/code_hash.py ignores)
    return real(help=help, unit="share of rows", low=0.0, high=1.0, default=default)


@dataclass(frozen=True, eq=False, kw_only=True)
class Gate:
    """The [evaluate.gate] table: what accepts or rejects each proposal."""

    command: tuple[str, ...] = texts(
        help="External gate, one argument per item: it reads proposals and writes verdicts, both JSON lines "
        "(docs/gate.md); empty: the built-in policy of the keys below",
        default=(),
    )
    timeout_s: int = whole(
        help="Longest time an external gate may stay silent",
        unit="seconds",
        low=1,
        high=86_400,
        default=60,
        operational=True,
    )
    env: tuple[str, ...] = texts(
        help="External gate: names of environment variables that it gets besides PATH, HOME and the language; "
        "tokens are refused (docs/gate.md)",
        default=(),
        operational=True,
    )
    preserved: tuple[str, ...] = texts(help="Built-in gate: partitions whose rows keep their text", default=("stable",))
    blocked: tuple[str, ...] = texts(
        help="Built-in gate: partitions whose proposals are always rejected", default=("novelty",)
    )
    floor: int = whole(
        help="Built-in gate: edits allowed in any row", unit="code points", low=0, high=10_000, default=2
    )
    relative: float = real(
        help="Built-in gate: edits allowed in a row, if that is more than floor",
        unit="share of its code points",
        low=0.0,
        high=10.0,
        default=0.2,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Probe:
    """The [evaluate.probe] table: shares of test rows above which an adapter counts as collapsed."""

    max_empty: float = _share(0.05, help="Collapsed if more answers are empty")
    max_pad: float = _share(0.0, help="Collapsed if more answers contain pad or other control tokens")
    max_loop: float = _share(0.05, help="Collapsed if more answers repeat themselves")
    max_copied: float = _share(1.0, help="Collapsed if more answers copy the hypothesis")
    max_wrong_script: float = _share(0.05, help="Collapsed if more answers are in another script")
    max_over_long: float = _share(0.05, help="Collapsed if more answers do not end")


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluate:
    """The [evaluate] table of a recipe."""

    max_tokens: int = whole(
        help="Longest answer (0 = one and a half times the longest answer of the training rows)",
        unit="tokens",
        low=0,
        high=65_536,
        default=0,
    )
    batch_size: int = whole(help="Rows scored or answered at once", unit="rows", low=1, high=4096, default=8)
    profile: str = text(help="Error rate that decides", choices=PROFILES, default=CER_CODEPOINT)
    bootstrap: int = whole(
        help="Bootstrap samples of each interval", unit="samples", low=100, high=100_000, default=1000
    )
    seed: int = whole(help="Seed of the bootstrap samples", low=0, high=SEED_MAX, default=0)
    gate: Gate = nested(Gate, help="What accepts or rejects each proposal", default=Gate)
    probe: Probe = nested(Probe, help="When answers count as collapsed", default=Probe)
