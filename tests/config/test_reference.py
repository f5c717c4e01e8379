"""Each key is declared once: the docs, the editors' schemas and the dataclasses agree with the declaration."""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import jsonschema
import pytest

from tests.helpers.project_copy import PROJECT
from thunder_train.config import dataset, evaluate, project, project_file, promotion, reference, train
from thunder_train.config.fields import Table, table
from thunder_train.config.reference import Section


def keys_of(shape: Table, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every key of a schema, those of nested, listed and named tables included."""
    for key, rules in shape.items():
        yield (*path, key)
        inner, place = rules, (*path, key)
        if "schema" in rules.get("valuesrules", {}):
            inner, place = rules["valuesrules"], (*place, "NAME")
        elif rules["type"] == "list":
            inner = rules.get("schema", {})
        if inner.get("type") == "dict" and "schema" in inner:
            yield from keys_of(inner["schema"], place)


def documented(page: str) -> set[str]:
    """Every key that docs/recipe.md lists, as `header key`; a section that refers to another lists its keys."""
    listed: dict[str, list[str]] = {}
    for part in page.split("\n## `")[1:]:
        title, _, text = part.partition("`\n")
        referred = re.search(r"The keys are those of `(.+?)`", text)
        listed[title] = listed[referred.group(1)] if referred else re.findall(r"(?m)^\| `(\w+)`", text)
    return {f"{title} {key}" for title, keys in listed.items() for key in keys}


def header(path: tuple[str, ...], titles: set[str], top: str) -> str:
    """The section of a key."""
    name = ".".join(path[:-1])
    return next((title for title in (f"[{name}]", f"[[{name}]]") if title in titles), top)


@pytest.mark.parametrize("path", sorted(reference.pages()))
def test_generated_pages_are_current(path: str) -> None:
    """
    Run `./doit reference` after a change of a key.
    """
    assert reference.pages()[path] == (PROJECT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "top"), [(project.Recipe, "recipes/NAME.toml"), (project_file.ProjectFile, "thunder.toml")]
)
def test_every_key_is_documented(kind: type, top: str) -> None:
    """
    docs/recipe.md promises every key; a hand-kept list of tables once left 19 of them out.
    """
    page = documented(reference.pages()["docs/recipe.md"])
    titles = {line.rpartition(" ")[0] for line in page}

    paths = list(keys_of(table(kind)))

    assert 60 < len(paths)
    assert [] == [path for path in paths if f"{header(path, titles, top)} {path[-1]}" not in page]


def test_each_section_is_listed_once() -> None:
    """
    A key is looked up by the header of its table.
    """
    titles = [section.title for section in reference.sections()]

    assert len(titles) == len(set(titles))
    assert {"[train]", "[evaluate.gate]", "[[clusters.NAME.hosts]]", "[defaults.train]", "[project]"} <= set(titles)
    assert isinstance(reference.sections()[0], Section)


@pytest.mark.parametrize(
    "kind",
    [
        train.Train,
        evaluate.Evaluate,
        evaluate.Gate,
        evaluate.Probe,
        promotion.Promotion,
        project.Build,
        project.Host,
        dataset.Source,
    ],
)
def test_every_field_is_a_key(kind: type) -> None:
    """
    A field that no file can set would be a constant in disguise.
    """
    assert [field.name for field in fields(kind)] == list(table(kind))


@pytest.mark.parametrize(
    ("kind", "instead"),
    [(project.Model, {"name"}), (dataset.Dataset, {"name"}), (project.Cluster, {"name"}), (project.Recipe, {"file"})],
)
def test_named_tables_add_their_name(kind: type, instead: set[str]) -> None:
    """
    The name of [models.NAME] is a field too; a cluster's ranks become hosts, and one template a list of one.
    """
    others = {key.metadata["instead"][0] for key in fields(kind) if "instead" in key.metadata}

    assert (set(table(kind)) - others) | instead == {field.name for field in fields(kind)}


@pytest.mark.parametrize("kind", [evaluate.Gate, evaluate.Probe, evaluate.Evaluate, promotion.Promotion, project.Build])
def test_a_dataclass_has_the_defaults_of_its_table(kind: type) -> None:
    """
    What a test or a caller leaves out is what a recipe leaves out.
    """
    values = vars(kind())
    defaults = {key: rules["default"] for key, rules in table(kind).items()}

    assert defaults == {
        name: {} if is_dataclass(value) else [*value] if isinstance(value, tuple) else value
        for name, value in values.items()
    }


@pytest.mark.parametrize(
    "path", ["thunder.toml", *sorted(str(p.relative_to(PROJECT)) for p in PROJECT.glob("recipes/*"))]
)
def test_shipped_toml_names_and_passes_its_editor_schema(path: str) -> None:
    """
    taplo and Even Better TOML read the `#:schema` line and check as you type.
    """
    text = (PROJECT / path).read_text(encoding="utf-8")
    first = text.splitlines()[0]
    assert first.startswith("#:schema ")
    document = json.loads(((PROJECT / path).parent / first.removeprefix("#:schema ")).read_text(encoding="utf-8"))

    jsonschema.Draft7Validator.check_schema(document)
    jsonschema.validate(tomllib.loads(text), document)


def test_the_editor_schema_refuses_what_the_build_refuses() -> None:
    """
    A typo, a wrong type and a value out of bounds.
    """
    document = json.loads(reference.pages()["docs/recipe.schema.json"])
    recipe = {"cluster": "local", "model": "nano", "dataset": "d", "train": {"num_iters": 1}}
    jsonschema.validate(recipe, document)
    jsonschema.validate({**recipe, "train": {"epochs": 1.5, "num_layers": "all"}}, document)

    for wrong in (
        {"num_itres": 1},
        {"num_iters": "1"},
        {"num_iters": -1},
        {},
        {"num_iters": 1, "num_layers": "most"},
        {"num_iters": 1, "lora_scale": 0.0},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**recipe, "train": wrong}, document)
