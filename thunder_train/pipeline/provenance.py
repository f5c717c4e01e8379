"""A run's attestation.json: every file that it names is hashed again, and no field of it is typed by anybody."""

from pathlib import Path
from typing import Any

from thunder_train import ThunderError, __version__, raise_some
from thunder_train.build import accepted
from thunder_train.build.key import STATS
from thunder_train.config.project import Recipe
from thunder_train.core import files, paths, revisions, shipped
from thunder_train.pipeline import graph
from thunder_train.reproduce import attestation, compare, manifest
from thunder_train.reproduce.reproduce import changed

SCHEMA = "thunder.attested/1"
PARTS = (*manifest.IDENTITY, "code", "accepted", "command", "flags", "outputs", "metrics", "promotion")
"""Parts of a manifest that the files of a run give."""


def attest(recipe: Recipe, root: Path) -> dict[str, Any]:
    """Write the statement about a run that was built, and say what is in it.

    Raises ThunderError naming each file that is not as the build left it, and the command that makes it again.
    """
    name, code = recipe.name, revisions.hashes(STATS)
    stated = {stage: revisions.stated(stage, sha256) for stage, sha256 in code.items()}
    run = manifest.read(root / paths.run_manifest(name))
    hint = f"run `./doit manifest:{name}`, and attest again"
    problems = [*_made(run, root), *changed(run, root)]
    if not problems:
        now = manifest.build(recipe, root, stated, accepted.of_run(graph.decided(recipe)))
        problems = [_stale(each, name) for each in compare.differences(run, now, PARTS)]
    raise_some([*{str(each): ThunderError(each.what, each.where, hint) for each in problems}.values()])
    statement = attestation.statement(run, _facts(run, root, code, stated))
    files.write_json(root / paths.attestation(name), statement)
    return {
        "schema": SCHEMA,
        "file": paths.attestation(name),
        "sha256": files.sha256(root / paths.attestation(name)),
        "outputs": len(statement["subject"]),
        "inputs": len(statement["predicate"]["buildDefinition"]["resolvedDependencies"]),
    }


def _made(run: dict[str, Any], root: Path) -> list[ThunderError]:
    """A problem for each file that the build made, and that is not as the manifest has it."""
    recipe, model, inputs = run["recipe"], run["recipe"]["model"], run["inputs"]
    rows = paths.dataset(recipe["dataset"]["name"])
    made = {f"{paths.run(recipe['name'])}/{file['path']}": file["sha256"] for file in run["outputs"]}
    made |= {f"{rows}/{name}.jsonl": split["sha256"] for name, split in inputs["splits"].items()}
    made |= {file["path"]: file["sha256"] for file in inputs.get("start", [])}
    if model["kind"] == "nano":
        made |= {f"{paths.model(model['name'])}/files/{file['path']}": file["sha256"] for file in run["model"]["files"]}
    problems = []
    for path, sha256 in made.items():
        now = files.sha256(root / path) if (root / path).is_file() else ""
        if now != sha256:
            what = f"has changed: its sha256 is {now}, but the build made {sha256}" if now else "is missing"
            problems.append(ThunderError(what, path))
    return problems


def _stale(difference: compare.Difference, name: str) -> ThunderError:
    """A problem for a value of the manifest that the files of its run do not give."""
    sides = (difference.left, difference.right)
    was, now = ("nothing" if side is compare.ABSENT else files.json_line(side).strip() for side in sides)
    what = f"{difference.section}.{difference.key} is {was}, but the files of the run give {now}"
    return ThunderError(what, paths.run_manifest(name))


def _facts(run: dict[str, Any], root: Path, code: dict[str, str], stated: dict[str, str]) -> attestation.Facts:
    name = run["recipe"]["name"]
    folder, hint = root / paths.run(name), f"run `./doit report:{name}`"
    return attestation.Facts(
        code={stage: sha256 for stage, sha256 in code.items() if stated[stage] == run["code"][stage]},
        packages=files.sha256(files.require(shipped.place(attestation.PACKAGES, root), "restore it with git")),
        apart={each: files.sha256(files.require(folder / each, hint)) for each in attestation.APART},
        version=__version__,
    )
