"""The differences between two manifests, and the verdict on them if the second is a reproduction of the first."""

from dataclasses import dataclass, replace
from typing import Any

from thunder_train.config.start import named
from thunder_train.core import paths, revisions

IDENTICAL, EQUIVALENT, DIFFERENT, IMPOSSIBLE = "identical", "equivalent", "different", "impossible"
SECTIONS = ("recipe", "inputs", "model", "additions", "code", "accepted", "environment", "metrics", "promotion")
"""Parts of a manifest that `doit compare` shows; the other parts follow from them."""
ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "-"})()
"""Stands for a value that one side lacks, because None is a value of JSON."""
REPRODUCED = ("inputs", "model", "additions", "environment", "flags", "command", "outputs", "metrics", "promotion")
"""Parts of a manifest that a reproduction must reproduce."""
STAGES = ("data", "model", "train", "evaluate", "promotion")
"""Stages that write a file of a manifest, in the order in which they run."""
STAGE_OF = {"adapter": "train", **dict.fromkeys(paths.EVALUATED, "evaluate"), "promotion.json": "promotion"}
"""{output of a run, or its top folder: the stage that writes it}, in the order in which they are written."""


@dataclass(frozen=True)
class Difference:
    """A value that is not the same on both sides. key: as `train.learning_rate`, inside its section."""

    section: str
    key: str
    left: Any
    right: Any

    def as_json(self) -> dict[str, Any]:
        """As a JSON object, without a side that is ABSENT."""
        sides = {name: value for name, value in (("a", self.left), ("b", self.right)) if value is not ABSENT}
        return {"section": self.section, "key": self.key, **sides}


@dataclass(frozen=True)
class ComparedFile:
    """A file of a run. before: its sha256 in the manifest; now: in the reproduction; "" where there is no such file."""

    path: str
    stage: str
    before: str
    now: str


@dataclass(frozen=True)
class Verdict:
    """The result of a reproduction."""

    word: str
    """identical, equivalent, different or impossible."""
    recipe: str
    run_id: str
    why: str = ""
    """Possible causes of the first difference, as _cause returns them."""
    first: str = ""
    """The first file that differs; if all files are equal, the first key."""
    problems: tuple[str, ...] = ()
    """impossible: inputs that are missing or have changed, or why the build failed."""
    files: tuple[ComparedFile, ...] = ()
    differences: tuple[Difference, ...] = ()
    """left: the manifest; right: the reproduction."""
    metrics: int = 0
    """Number of metrics compared."""
    folder: str = ""
    """The folder of the reproduction, if it was kept."""
    apart: tuple[str, ...] = ()
    """Files that an in-toto statement names, and that no build makes the same twice: they were not compared."""

    @property
    def is_reproduced(self) -> bool:
        """Whether the run is the same, within the tolerance for another environment."""
        return self.word in (IDENTICAL, EQUIVALENT)


def differences(left: dict[str, Any], right: dict[str, Any], sections: tuple[str, ...] = SECTIONS) -> list[Difference]:
    """Every value of these sections that differs, sorted by section and key."""
    rows = []
    for section in sections:
        one, other = _facts(left, section), _facts(right, section)
        for key in sorted(one.keys() | other.keys()):
            pair = one.get(key, ABSENT), other.get(key, ABSENT)
            if pair[0] != pair[1]:
                rows.append(Difference(section, key, *pair))
    return rows


def _facts(run: dict[str, Any], section: str) -> dict[str, Any]:
    if not run.get(section):
        return {}
    if section == "code":  # the hash of code that was recorded since is that of a revision
        return {stage: revisions.stated(stage, code) for stage, code in run["code"].items()}
    return flattened(run[section])


def flattened(value: Any, name: str = "") -> dict[str, Any]:
    """A JSON value as {dotted key: plain value}. Items of a list are named by their content, else by their index."""
    if isinstance(value, dict) and value:
        items = {str(key): inner for key, inner in value.items()}
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        items = _labelled(value)
    else:
        return {name: value}
    flat: dict[str, Any] = {}
    for key, inner in items.items():
        for dotted, plain in flattened(inner, f"{name}.{key}" if name else key).items():
            flat[_unique(dotted, flat)] = plain
    return flat


def _unique(name: str, taken: dict[str, Any]) -> str:
    """The name, with # added while it is taken: a key that contains a dot must not replace another value."""
    while name in taken:
        name += "#"
    return name


def _labelled(items: list[Any]) -> dict[str, Any]:
    labelled: dict[str, Any] = {}
    for index, item in enumerate(items):
        label, value = _label(item, index)
        labelled[_unique(label, labelled)] = value
    return labelled


def _label(item: Any, index: int) -> tuple[str, Any]:
    """A file by its path, a score by its condition and partition, a loss [step, value] by its step."""
    if isinstance(item, dict) and "path" in item:
        return str(item["path"]), item
    if isinstance(item, dict) and {"condition", "partition"} <= item.keys():
        return f"{item['condition']}.{item['partition']}", item
    if isinstance(item, list) and len(item) == 2 and isinstance(item[0], int):
        return str(item[0]), item[1]
    return str(index), item


def judge(old: dict[str, Any], new: dict[str, Any], tolerance: float) -> Verdict:
    """The verdict on a manifest (old) and its reproduction (new).

    tolerance: largest allowed difference of a metric in another environment, relative to the larger absolute value.
    """
    differing, code = differences(old, new, REPRODUCED), differences(old, new, ("code",))
    compared = _compared_files(old, new)
    verdict = Verdict(IDENTICAL, old["recipe"]["name"], old["run_id"], files=compared, differences=(*differing, *code))
    verdict = replace(verdict, metrics=len(flattened(new["metrics"])))
    if not differing:
        return verdict
    first = next((file for file in compared if file.before != file.now), None)
    why = _cause(old, first, differing, code)
    is_near = all(_is_near(difference, tolerance) for difference in differing)
    word = EQUIVALENT if why == "environment" and is_near else DIFFERENT
    first_key = f"{differing[0].section}.{differing[0].key}"
    return replace(verdict, word=word, why=why, first=first.path if first else first_key)


def first_of(recipe: dict[str, Any]) -> str:
    """Name of the recipe whose adapter a manifest's recipe begins with; "" if it begins with no recipe's."""
    return named(str(recipe.get("train", {}).get("start_from", "")))


def _compared_files(old: dict[str, Any], new: dict[str, Any]) -> tuple[ComparedFile, ...]:
    """Every file of two manifests of a run, in the order in which they are written."""
    before, now = _files(old), _files(new)
    order = sorted({**now, **before}, key=lambda file: (STAGES.index(file[1]), file[2]))
    return tuple(ComparedFile(file[0], file[1], before.get(file, ""), now.get(file, "")) for file in order)


def _files(run: dict[str, Any]) -> dict[tuple[str, str, int], str]:
    """{(path, stage, position among the files of its stage): sha256} of a manifest."""
    recipe, splits = run["recipe"], run["inputs"]["splits"]
    model, data = recipe["model"], paths.dataset(recipe["dataset"]["name"])
    hashes: dict[tuple[str, str, int], str] = {}
    if first := first_of(recipe):
        pinned = {entry["path"]: entry["sha256"] for entry in run["inputs"].get("start", [])}
        hashes = {(path, "train", -1): sha256 for path, sha256 in pinned.items() if path.startswith(paths.run(first))}
    home = f"{paths.model(model['name'])}/files" if model["kind"] == "nano" else f"model:{model['name']}"
    hashes |= {(f"{data}/{name}.jsonl", "data", 0): splits[name]["sha256"] for name in splits}
    hashes |= {(f"{home}/{file['path']}", "model", 0): file["sha256"] for file in run["model"]["files"]}
    for file in run["outputs"]:
        part, path = file["path"].partition("/")[0], f"{paths.run(recipe['name'])}/{file['path']}"
        position = [*STAGE_OF].index(part) if part in STAGE_OF else len(STAGE_OF)
        hashes[path, STAGE_OF.get(part, "promotion"), position] = file["sha256"]
    return hashes


def _cause(old: dict[str, Any], first: ComparedFile | None, differing: list[Difference], code: list[Difference]) -> str:
    """Possible causes of the first difference: each input of the stages up to it that has changed."""
    # Given files come from the current project, not from the manifest, and so do the templates of scripts.
    is_given = any(_is_input(each, old["recipe"]) for each in differing)
    is_added = any(each.section == "additions" for each in differing)
    is_rendered = first and first.stage == "promotion"  # from recipe and code alone
    stages = STAGES[: STAGES.index(first.stage) + 1] if first else ()
    causes = {
        "inputs": is_given,
        "code": is_added or any(difference.key in stages for difference in code) or (is_rendered and not is_given),
        "environment": not is_rendered and any(difference.section == "environment" for difference in differing),
    }
    possible = " or ".join(cause for cause, holds in causes.items() if holds)
    return possible or ("nondeterminism" if first else "a manifest that contradicts itself")


def _is_input(difference: Difference, recipe: dict[str, Any]) -> bool:
    """Whether a value comes from outside the build: a source, the template, a file of a model other than nano."""
    if difference.section == "inputs":
        return not difference.key.startswith(("splits.", "start.") if first_of(recipe) else "splits.")
    return difference.section == "model" and bool(recipe["model"]["kind"] != "nano")


def _is_near(difference: Difference, tolerance: float) -> bool:
    """Whether another environment may cause this difference, and the difference is within the tolerance."""
    if difference.section == "metrics":
        left, right = difference.left, difference.right
        if any(isinstance(side, bool) or not isinstance(side, int | float) for side in (left, right)):
            return False
        return bool(abs(left - right) <= tolerance * max(abs(left), abs(right)))
    if difference.section == "promotion":
        return difference.key != "decision"
    is_start = difference.section == "inputs" and difference.key.startswith("start.")  # another recipe's adapter
    return is_start or difference.section in ("environment", "outputs", "model")
