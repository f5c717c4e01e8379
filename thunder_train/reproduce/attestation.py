"""A run's provenance in a form that others read: an in-toto statement with SLSA provenance v1.

`statement` makes it of the run's manifest and a few hashes beside it; docs/attestations.md has each field.  `read`
takes one from anyone: it must hold a manifest that can be trusted, and nothing that does not follow from that manifest.
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md, https://slsa.dev/spec/v1.1/provenance
"""

import hashlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from thunder_train import ThunderError, raise_some
from thunder_train.core import files, paths, revisions
from thunder_train.core.text import quoted
from thunder_train.reproduce import compare, manifest

TYPE = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:thunder-train:build:recipe:v1"
BUILDER = "urn:thunder-train:builder:local:v1"
PACKAGES = "requirements.lock"
APART = (*paths.REPORTS, paths.CARD)
"""Outputs that no manifest lists: pages for people, which also show when and where a run was made."""
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,39}")
HINT = "ask for another, or make one with `./doit attest:NAME`"


class Facts(NamedTuple):
    """What a statement says that its manifest does not."""

    code: dict[str, str]
    """{stage: sha256 of its code, over syntax trees}; a stage whose accepted outputs other code made is left out."""
    packages: str
    """sha256 of requirements.lock."""
    apart: dict[str, str]
    """{name of APART: sha256}"""
    version: str
    """Of Thunder Train."""


class _Resource(msgspec.Struct):
    name: str
    digest: dict[str, str]
    annotations: dict[str, Any] = {}


class _Build(msgspec.Struct):
    buildType: str  # noqa: N815  (the name in the specification)
    resolvedDependencies: list[_Resource]  # noqa: N815


class _Builder(msgspec.Struct):
    id: str
    version: dict[str, str]


class _Run(msgspec.Struct):
    builder: _Builder
    byproducts: list[_Resource]


class _Predicate(msgspec.Struct):
    buildDefinition: _Build  # noqa: N815
    runDetails: _Run  # noqa: N815


class _Statement(msgspec.Struct):
    subject: list[_Resource]
    predicateType: str  # noqa: N815
    predicate: _Predicate


def statement(run: dict[str, Any], facts: Facts) -> dict[str, Any]:
    """The statement about a run. run: its manifest. It holds no time, host or absolute path."""
    folder, outputs = paths.run(run["recipe"]["name"]), {file["path"]: file["sha256"] for file in run["outputs"]}
    rows = {f"{paths.dataset(run['recipe']['dataset']['name'])}/{name}.jsonl": split for name, split in _splits(run)}
    made = {"name": f"{folder}/manifest.json", **_sha256(_manifest_sha256(run)), "annotations": {"manifest": run}}
    parts = {name: run[name] for name in ("environment", "additions", "accepted") if name in run}
    return {
        "_type": TYPE,
        "subject": _named({f"{folder}/{path}": sha256 for path, sha256 in {**outputs, **facts.apart}.items()}),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"recipe": run["recipe"]},
                "internalParameters": parts,
                "resolvedDependencies": _dependencies(run, facts),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"thunder-train": facts.version}},
                "metadata": {"invocationId": run["run_id"]},
                "byproducts": [*_named({path: split["sha256"] for path, split in rows.items()}), made],
            },
        },
    }


def read(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The manifest in a file that is one, or in a statement about a run; and the subjects that cannot be made again.

    Raises ThunderError with every reason not to trust it.
    """
    given = manifest.decoded(path)
    if "_type" not in given:
        return manifest.checked(given, path), ()
    run, facts = _parts(given, path)
    run = manifest.checked(run, path)
    try:
        problems = [*_contradictions(given, statement(run, facts), path), *_doubts(run, facts, path)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ThunderError(f"is not a statement about a run: {error!r}", str(path), HINT) from None
    raise_some(problems)
    return run, tuple(f"{paths.run(run['recipe']['name'])}/{name}" for name in facts.apart)


def _parts(given: dict[str, Any], path: Path) -> tuple[dict[str, Any], Facts]:
    """The manifest and the facts in a statement, of which nothing has been checked but the types."""
    kinds = {"_type": (given["_type"], TYPE), "predicateType": (given.get("predicateType"), PREDICATE)}
    for key, (value, expected) in kinds.items():
        if value != expected:
            raise ThunderError(f"is {quoted(value)}, but this version reads {expected}", f"{path}: {key}", HINT)
    try:
        typed = msgspec.convert(given, _Statement)
    except (ValueError, RecursionError) as error:
        raise ThunderError(f"is not a statement about a run: {error}", str(path), HINT) from None
    details = typed.predicate.runDetails
    held = [each.annotations["manifest"] for each in details.byproducts if "manifest" in each.annotations]
    if len(held) != 1 or not isinstance(held[0], dict):
        raise ThunderError("needs one manifest of a run among its byproducts", str(path), HINT)
    pinned = {each.name: each.digest.get("sha256", "") for each in typed.predicate.buildDefinition.resolvedDependencies}
    ends = {re.sub(r"^runs/[^/]+/", "", each.name): each.digest.get("sha256", "") for each in typed.subject}
    apart = {name: ends[name] for name in APART if name in ends}
    code = {stage: pinned[_code(stage)] for stage in revisions.CODE if pinned.get(_code(stage))}
    version = details.builder.version.get("thunder-train", "")
    return held[0], Facts(code, pinned.get(PACKAGES, ""), apart, version)


def _contradictions(given: dict[str, Any], expected: dict[str, Any], path: Path) -> list[ThunderError]:
    """A problem for each value of a statement that does not follow from the manifest in it, or is missing."""
    sides = (compare.flattened(each) for each in (given, expected))
    one, other = ({key: files.json_line(value) for key, value in side.items()} for side in sides)
    differing = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    problems = []
    for key in differing:
        if key not in other:
            what = "is no part of a statement about a run"
        else:
            what = f"is {quoted(one.get(key, 'missing').strip())}, but its manifest says {quoted(other[key].strip())}"
        problems.append(ThunderError(what, f"{path}: {quoted(key)[1:-1]}", HINT))
    return problems


def _doubts(run: dict[str, Any], facts: Facts, path: Path) -> list[ThunderError]:
    """A problem for each fact beside the manifest that cannot be one."""
    hashes = {**{_code(stage): sha256 for stage, sha256 in facts.code.items()}, PACKAGES: facts.packages, **facts.apart}
    problems = [
        ThunderError(f"has the digest {quoted(sha256)}, which is no sha256", f"{path}: {name}", HINT)
        for name, sha256 in hashes.items()
        if not files.is_sha256(sha256)
    ]
    if not VERSION.fullmatch(facts.version):
        problems.append(ThunderError(f"is {quoted(facts.version)}", f"{path}: builder.version", HINT))
    for stage, version in run["code"].items():
        if not revisions.is_revision(version) and facts.code.get(stage, version) != version:
            what = f"is {facts.code[stage]}, but its manifest says {version}"
            problems.append(ThunderError(what, f"{path}: {_code(stage)}", HINT))
    return problems


def _dependencies(run: dict[str, Any], facts: Facts) -> list[dict[str, Any]]:
    """Every input of a run: given files, the files of the base model, code and packages, each with its role."""
    inputs, model = run["inputs"], run["recipe"]["model"]
    template = [inputs["chat_template"]] if "chat_template" in inputs else []
    kinds = {
        "source": inputs["sources"],
        "prompt template": inputs["templates"],
        "chat template": template,
        "adapter": inputs.get("adapter", []),
        "start": inputs.get("start", []),
    }
    given = [
        {"name": file["path"], **_sha256(file["sha256"]), "annotations": {"role": role}}
        for role, entries in kinds.items()
        for file in entries
    ]
    base = [
        {
            "name": f"{_home(model)}/{file['path']}",
            **_sha256(file["sha256"]),
            **_uri(model, run["model"], file["path"]),
            "annotations": {"role": "model"},
        }
        for file in run["model"]["files"]
    ]
    code = [
        {
            "name": _code(stage),
            "digest": {"sha256": facts.code[stage]} if stage in facts.code else {"revision": version},
            "annotations": {"role": "code", "version": version},
        }
        for stage, version in sorted(run["code"].items())
    ]
    packages = {"name": PACKAGES, **_sha256(facts.packages), "annotations": {"role": "packages"}}
    return [*given, *base, *code, packages]


def _home(model: dict[str, Any]) -> str:
    """The folder of a base model, as a path in a project."""
    kept = {"path": model["path"], "nano": f"{paths.model(model['name'])}/files"}
    return str(kept.get(model["kind"], paths.model(model["name"])))


def _uri(model: dict[str, Any], lock: dict[str, Any], name: str) -> dict[str, str]:
    """Where a file of a Hugging Face model lies."""
    if model["kind"] != "hub":
        return {}
    return {"uri": f"https://huggingface.co/{model['repo']}/resolve/{lock['commit']}/{name}"}


def _code(stage: str) -> str:
    return f"thunder_train: {stage}"


def _splits(run: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(run["inputs"]["splits"].items())


def _named(hashes: dict[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, **_sha256(sha256)} for name, sha256 in sorted(hashes.items())]


def _sha256(sha256: str) -> dict[str, dict[str, str]]:
    return {"digest": {"sha256": sha256}}


def _manifest_sha256(run: dict[str, Any]) -> str:
    """Of the file that the build wrote."""
    return hashlib.sha256(files.canonical(run).encode()).hexdigest()
