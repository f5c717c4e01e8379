"""Limits below which no decision is GO, however a recipe sets them: the defaults of [promotion] and [evaluate].

Input: a recipe's limits.  Output: a sentence for each that is weaker than its default.
"""

from collections.abc import Iterator
from dataclasses import asdict

from thunder_train.config.evaluate import Evaluate
from thunder_train.config.promotion import Promotion

NEVER_LESS = ("promotion.min_rows", "promotion.needs_witness", "evaluate.bootstrap")
"""Limits that are weaker if they are less; the others are if they are more."""
OF_A_GATE = ("promotion.max_worse", "promotion.needs_witness")
"""Limits that are not asked of a chat, whose answers pass no gate."""


def relaxed(limits: Promotion, settings: Evaluate, is_chat: bool) -> Iterator[str]:
    """Each limit that the recipe made weaker than its floor, as a sentence."""
    given, floor = _limits(limits, settings), _limits(Promotion(), Evaluate())
    for key, value in given.items():
        is_weaker = value < floor[key] if key in NEVER_LESS else value > floor[key]
        if is_weaker and not (is_chat and key in OF_A_GATE):
            yield f"The recipe sets {key} to {_shown(value)}; with one weaker than {_shown(floor[key])} there is no GO."


def _limits(limits: Promotion, settings: Evaluate) -> dict[str, float]:
    """Key -> limit."""
    ours = {f"promotion.{key}": value for key, value in asdict(limits).items() if key != "provenance"}
    probe = {f"evaluate.probe.{key}": value for key, value in asdict(settings.probe).items()}
    return ours | {"evaluate.bootstrap": settings.bootstrap} | probe


def _shown(value: float) -> str:
    return str(value).lower() if isinstance(value, int) else f"{value:g}"
