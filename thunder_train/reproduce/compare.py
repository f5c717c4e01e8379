"""What differs between two manifests, and what that says when the second is the first made again."""

from dataclasses import dataclass, replace
from typing import Any

from thunder_train.core.paths import EVALUATED

IDENTICAL, EQUIVALENT, DIFFERENT, IMPOSSIBLE = "identical", "equivalent", "different", "impossible"
SECTIONS = ("recipe", "inputs", "model", "code", "environment", "metrics", "promotion")
"""Parts of a manifest that tell two runs apart for people; files follow from them."""
ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "-"})()
"""Stands for the value of a fact that one side does not have; None is a value of JSON."""
REPRODUCED = ("inputs", "model", "environment", "flags", "command", "outputs", "metrics", "promotion")
"""Parts of a manifest that are equal when a run has been made again."""
STAGES = ("data", "model", "scripts", "train", "evaluate", "promotion")
"""Stages that make a file of a manifest, in the order in which they run; scripts are the hostfile's too."""
STAGE_OF = {"hostfile.json": "scripts", "launch.sh": "scripts", "evaluate.sh": "scripts", "adapter": "train"}
STAGE_OF |= dict.fromkeys(EVALUATED, "evaluate") | {"promotion.json": "promotion"}
"""Output of a run, or its folder -> the stage that makes it, in the order in which they are made."""


@dataclass(frozen=True)
class Difference:
    """A fact on both sides. key: as `train.learning_rate`, in its section."""

    section: str
    key: str
    left: Any
    right: Any

    def as_json(self) -> dict[str, Any]:
        """The same for machines; a side that is absent is left out."""
        sides = {name: value for name, value in (("a", self.left), ("b", self.right)) if value is not ABSENT}
        return {"section": self.section, "key": self.key, **sides}


@dataclass(frozen=True)
class Made:
    """A file that a manifest vouches for, before and now. before, now: sha256, "" where there was none."""

    path: str
    stage: str
    before: str
    now: str


@dataclass(frozen=True)
class Verdict:
    """What making a run again came to."""

    word: str
    """identical, equivalent, different or impossible."""
    recipe: str
    run_id: str
    why: str = ""
    """inputs, code, environment (or several of them), nondeterminism, or that the manifest contradicts itself."""
    first: str = ""
    """The file, or else the fact, that differs first."""
    problems: tuple[str, ...] = ()
    """impossible: what is missing or altered, or why the build failed."""
    files: tuple[Made, ...] = ()
    differences: tuple[Difference, ...] = ()
    """Left is the manifest's."""
    metrics: int = 0
    """How many metrics there are."""
    folder: str = ""
    """Where the run was made again, when that was kept."""

    @property
    def is_reproduced(self) -> bool:
        """Whether the run is the same, as far as its platform allows."""
        return self.word in (IDENTICAL, EQUIVALENT)


def differences(left: dict[str, Any], right: dict[str, Any], sections: tuple[str, ...] = SECTIONS) -> list[Difference]:
    """Every fact of these sections that is not equal, by section and key."""
    found = []
    for section in sections:
        one, other = facts(left.get(section, {})), facts(right.get(section, {}))
        for key in sorted(one.keys() | other.keys()):
            pair = one.get(key, ABSENT), other.get(key, ABSENT)
            if pair[0] != pair[1]:
                found.append(Difference(section, key, *pair))
    return found


def facts(value: Any, name: str = "") -> dict[str, Any]:
    """A JSON value as {dotted key: plain value}; items of lists go by what they are called, else by number."""
    if isinstance(value, dict) and value:
        items = {str(key): inner for key, inner in value.items()}
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        items = _labelled(value)
    else:
        return {name: value}
    flat: dict[str, Any] = {}
    for key, inner in items.items():
        for fact, plain in facts(inner, f"{name}.{key}" if name else key).items():
            flat[_free(fact, flat)] = plain
    return flat


def _free(name: str, taken: dict[str, Any]) -> str:
    """The name, marked when it is taken: a key with a dot in it must not hide another fact."""
    while name in taken:
        name += "#"
    return name


def _labelled(items: list[Any]) -> dict[str, Any]:
    labelled: dict[str, Any] = {}
    for index, item in enumerate(items):
        label, value = _label(item, index)
        labelled[_free(label, labelled)] = value
    return labelled


def _label(item: Any, index: int) -> tuple[str, Any]:
    """A file by its path, a score by condition and partition, a loss [step, value] by its step."""
    if isinstance(item, dict) and "path" in item:
        return str(item["path"]), item
    if isinstance(item, dict) and {"condition", "partition"} <= item.keys():
        return f"{item['condition']}.{item['partition']}", item
    if isinstance(item, list) and len(item) == 2 and isinstance(item[0], int):
        return str(item[0]), item[1]
    return str(index), item


def judge(old: dict[str, Any], new: dict[str, Any], tolerance: float) -> Verdict:
    """The verdict on a manifest and the one that came out when its run was made again.

    tolerance: how far metrics may be off, relatively, when the environment is another.
    """
    found, code = differences(old, new, REPRODUCED), differences(old, new, ("code",))
    made = _made(old, new)
    verdict = Verdict(IDENTICAL, old["recipe"]["name"], old["run_id"], files=made, differences=(*found, *code))
    verdict = replace(verdict, metrics=len(facts(new["metrics"])))
    if not found:
        return verdict
    first = next((file for file in made if file.before != file.now), None)
    why = _cause(old, first, found, code)
    is_near = all(_is_near(difference, tolerance) for difference in found)
    word = EQUIVALENT if why == "environment" and is_near else DIFFERENT
    return replace(verdict, word=word, why=why, first=first.path if first else f"{found[0].section}.{found[0].key}")


def _made(old: dict[str, Any], new: dict[str, Any]) -> tuple[Made, ...]:
    """Every file of two manifests of a run, in the order in which they are made."""
    before, now = _files(old), _files(new)
    order = sorted({**now, **before}, key=lambda file: (STAGES.index(file[1]), file[2]))
    return tuple(Made(file[0], file[1], before.get(file, ""), now.get(file, "")) for file in order)


def _files(run: dict[str, Any]) -> dict[tuple[str, str, int], str]:
    """{(path, stage, place among its stage's files): sha256} of a manifest."""
    recipe, splits = run["recipe"], run["inputs"]["splits"]
    model = recipe["model"]
    home = f"runs/models/{model['name']}/files" if model["kind"] == "nano" else f"model:{model['name']}"
    found = {(f"data/{recipe['dataset']['name']}/{name}.jsonl", "data", 0): splits[name]["sha256"] for name in splits}
    found |= {(f"{home}/{file['path']}", "model", 0): file["sha256"] for file in run["model"]["files"]}
    for file in run["outputs"]:
        part = file["path"].partition("/")[0]
        place = [*STAGE_OF].index(part) if part in STAGE_OF else len(STAGE_OF)
        found[f"runs/{recipe['name']}/{file['path']}", STAGE_OF.get(part, "promotion"), place] = file["sha256"]
    return found


def _cause(old: dict[str, Any], first: Made | None, found: list[Difference], code: list[Difference]) -> str:
    """What may explain the first difference: each thing before it that is not as it was."""
    hosts = f"runs/{old['recipe']['name']}/hostfile.json"  # they are today's
    is_given = (first and first.path == hosts) or any(_is_input(difference, old["recipe"]) for difference in found)
    is_rendered = first and first.stage in ("scripts", "promotion")  # from recipe, templates and code alone
    stages = STAGES[: STAGES.index(first.stage) + 1] if first else ()
    causes = {
        "inputs": is_given,
        "code": any(difference.key in stages for difference in code) or (is_rendered and not is_given),
        "environment": not is_rendered and any(difference.section == "environment" for difference in found),
    }
    likely = " or ".join(cause for cause, holds in causes.items() if holds)
    return likely or ("nondeterminism" if first else "the manifest contradicts itself")


def _is_input(difference: Difference, recipe: dict[str, Any]) -> bool:
    """Whether a fact is given from outside: a source, the template, a file of a model that is not made here."""
    if difference.section == "inputs":
        return not difference.key.startswith("splits.")
    return difference.section == "model" and bool(recipe["model"]["kind"] != "nano")


def _is_near(difference: Difference, tolerance: float) -> bool:
    """Whether another platform may differ in this fact, and so far."""
    if difference.section == "metrics":
        left, right = difference.left, difference.right
        if any(isinstance(side, bool) or not isinstance(side, int | float) for side in (left, right)):
            return False
        return bool(abs(left - right) <= tolerance * max(abs(left), abs(right)))
    if difference.section == "promotion":
        return difference.key != "decision"
    return difference.section in ("environment", "outputs", "model")
