"""schema.py is the one place that describes keys: docs, editor schemas and dataclasses follow it."""

import json
import tomllib
from dataclasses import fields

import jsonschema
import pytest

from tests.helpers.project_copy import PROJECT
from thunder_train.config import dataset, evaluate, project, reference, schema, train
from thunder_train.config.fields import Table


@pytest.mark.parametrize("path", sorted(reference.pages()))
def test_generated_pages_are_current(path: str) -> None:
    """
    Run `./doit reference` after a change of schema.py.
    """
    assert reference.pages()[path] == (PROJECT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        (schema.TRAIN, train.Train),
        (schema.EVALUATE, evaluate.Evaluate),
        (schema.BUILD, project.Build),
        (schema.SOURCE, dataset.Source),
        (schema.HOST, project.Host),
    ],
)
def test_every_key_has_its_field(table: Table, kind: type) -> None:
    """
    A key that no dataclass holds would be accepted and ignored.
    """
    assert set(table) == {field.name for field in fields(kind)}


@pytest.mark.parametrize(
    ("table", "kind", "instead"),
    [
        (schema.MODEL, project.Model, {"name"}),
        (schema.DATASET, dataset.Dataset, {"name"}),
        (schema.CLUSTER, project.Cluster, {"name"}),
    ],
)
def test_named_tables_add_their_name(table: Table, kind: type, instead: set[str]) -> None:
    """
    The name of [models.NAME] is a field too; a cluster's ranks become hosts, and one template a list of one.
    """
    assert (set(table) - {"ranks", "template"}) | instead == {field.name for field in fields(kind)}


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

    for wrong in ({"num_itres": 1}, {"num_iters": "1"}, {"num_iters": 0}, {}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**recipe, "train": wrong}, document)
