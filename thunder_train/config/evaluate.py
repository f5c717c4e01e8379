"""The keys of [evaluate], its gate and its probe: type, bounds, unit, default and help of each, stated only here."""
# ruff: noqa: RUF009  (a call per key is how keys are declared)

from dataclasses import dataclass
from typing import Any

from thunder_train.config.fields import SEED_MAX, named, nested, real, text, texts, whole
from thunder_train.config.profiles import DEFAULT, Profile


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
    profile: str = text(
        help="Error rate that decides: a name of docs/evaluation.md or a profile of yours", default=DEFAULT
    )
    profiles: dict[str, dict[str, Any]] = named(
        Profile, help="Error rates of this recipe beside those of thunder.toml, by name", needed=False, later=True
    )
    bootstrap: int = whole(
        help="Bootstrap samples of each interval", unit="samples", low=100, high=100_000, default=1000
    )
    seed: int = whole(help="Seed of the bootstrap samples", low=0, high=SEED_MAX, default=0)
    gate: Gate = nested(Gate, help="What accepts or rejects each proposal", default=Gate)
    probe: Probe = nested(Probe, help="When answers count as collapsed", default=Probe)
