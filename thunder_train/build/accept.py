"""Lets a stage's outputs stand under today's code and environment: changes its record, and accepted.json beside them.

Refused if anything else changed: keys of the recipe, inputs, outputs. Nothing of it comes into the run cache.
"""

from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.build import accepted, environment, running
from thunder_train.build.key import STATS, Stage
from thunder_train.build.stage import decisive, lasting_reasons, reasons
from thunder_train.core import code_hash


def accept(stages: list[Stage], state: Any) -> list[str]:
    """Accept the outputs of all these stages, or of none: raises ThunderError with every reason against it.

    What happened, in lines. state: the DurableState.
    """
    raise_all([problem for stage in stages for problem in _problems(stage, state)])
    return [line for stage in stages for line in _accept(stage, state)]


def _problems(stage: Stage, state: Any) -> list[ThunderError]:
    values, hint = state.get(stage.name, "_values_:") or {}, f"`./doit {stage.name}` makes them"
    if "made" not in values:
        why = running.describe(state.marked(stage.name), stage.name) or "never built"
        return [ThunderError(f"has no outputs on this machine to accept: {why}", stage.name, hint)]
    against = [*lasting_reasons(stage, state)]
    what = f"its outputs are not those of this recipe and these inputs: {'; '.join(against)}"
    return [ThunderError(what, stage.name, hint)] if against else []


def _accept(stage: Stage, state: Any) -> list[str]:
    if next(reasons(stage, state), None) is None:
        return [f"{stage.name}: is up to date"]
    state.keep_others_out()
    entry = accepted.change(accepted.entry_of(stage.name), _recorded(stage, state), _today(stage))
    accepted.note(stage.name, entry)  # before the record: after a kill in between, the stage is stale as before
    _record(stage, state)
    said = [*accepted.sentences(entry)] or ["stands under the code and in the environment that made it"]
    return [f"{stage.name}: {sentence}" for sentence in said]


def _recorded(stage: Stage, state: Any) -> dict[str, Any]:
    values = state.get(stage.name, "_values_:")
    code = (state.kept(values.get("decisive", "")) or {}).get("code", values["code"])
    return {"code": code, "environment": values.get("environment", {})}


def _today(stage: Stage) -> dict[str, Any]:
    return {"code": decisive(stage.code)["code"], "environment": _environment(stage)}


def _environment(stage: Stage) -> dict[str, str]:
    return {} if stage.compared is None else environment.whole()


def _record(stage: Stage, state: Any) -> None:
    """Remember the outputs as if today's code had made them here."""
    now = {
        "code": state.keep(code_hash.hashes(stage.code, STATS)),
        "decisive": state.keep(decisive(stage.code)),
        "environment": _environment(stage),
    }
    state.set(stage.name, "_values_:", {**state.get(stage.name, "_values_:"), **now})
    state.set(stage.name, "deps:", state.get(stage.name, "deps:"))  # which commits the record
