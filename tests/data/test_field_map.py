"""The field map: paths into a row, null and absent fields, names that know the reference."""

from collections import Counter
from typing import Any

import pytest

from tests.helpers.inputs import source
from thunder_train import ThunderError
from thunder_train.data.field_map import ABSENT, FieldMap, dig

FIELDS = ("asr_text", "partition", "reference_text", "telemetry")


def refusal(**given: Any) -> str:
    """The text of the error that a field map gives."""
    with pytest.raises(ThunderError) as error:
        FieldMap(source(**given), FIELDS, (), is_whole=False)
    return str(error.value)


@pytest.mark.parametrize(
    ("dotted", "expected"),
    [
        ("a.b[1].c", 2),
        ("a.b.1.c", 2),
        ("a.b[].c", [1, 2]),
        ("a.b[2].c", ABSENT),
        ("a.b[x].c", ABSENT),
        ("a.b.c", ABSENT),
        ("cell[1]", "y"),
        ("object.x[0]", 3),
        ("text[0]", ABSENT),
        ("broken[0]", ABSENT),
        ("pandas[1]", "it's"),
        ("pandas_object.b.1", 2),
        ("half[0]", ABSENT),
        ("deep[0]", ABSENT),
        ("empty[0]", None),
        ("null", None),
        ("null.x", ABSENT),
        ("odd[0].x", 4),
        ("[0]", ABSENT),
        ("a.b[9999999]", ABSENT),
    ],
)
def test_a_path_reaches_into_objects_and_lists(dotted: str, expected: Any) -> None:
    """
    A cell that holds JSON counts as what it holds; a member whose own name looks like a path takes precedence.
    """
    value: dict[str, Any] = {
        "a": {"b": [{"c": 1}, {"c": 2}]},
        "cell": '["x", "y"]',
        "object": '{"x": [3]}',
        "text": "x",
        "broken": "[x",
        "pandas": """['y', "it's"]""",
        "pandas_object": "{'b': {1: 2}}",
        "half": r"['\ud800']",
        "deep": "[" * 100000,
        "empty": [],
        "null": None,
        "odd[0].x": 4,
    }

    assert expected == dig(value, dotted)


def test_null_is_kept_where_it_says_something() -> None:
    """
    A null hypothesis is a recogniser that heard nothing; a null partition is none.
    """
    fields = {"asr_text": "out.hyp", "partition": "out.regime", "reference_text": "out.ref"}
    field_map = FieldMap(source(fields=fields), FIELDS, (), is_whole=True)

    assert ({"asr_text": None}, []) == field_map.applied({"out": {"hyp": None, "regime": None}})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"fields": {"asr_text": "out.reference"}},
         "'asr_text' is read from 'out.reference', which knows the reference; take it out of `fields`"),
        ({"fields": {"partition": "is_correct"}},
         "'partition' is read from 'is_correct', which knows the reference; take it out of `fields`"),
        ({"fields": {"telemetry.novelty": "scores[0].wer"}},
         "'telemetry.novelty' is read from 'scores[0].wer', which knows the reference; take it out of `fields`"),
        ({"telemetry": ("mood", "lattice.edits_before")},
         "telemetry names 'lattice.edits_before', which knows the reference; take it out of `telemetry`"),
        ({"fields": {"partition": "p"}, "constants": {"partition": "x"}}, "maps 'partition' twice; keep one of them"),
    ],
)  # fmt: skip
def test_a_map_that_shows_the_reference_is_refused(given: dict[str, Any], expected: str) -> None:
    """
    Under another name it would reach the prompt, and nobody would see it.
    """
    assert f"in.jsonl: {expected}" == refusal(**given)


def test_the_reference_may_come_from_any_name() -> None:
    """
    It is the one field that must know it.
    """
    FieldMap(source(fields={"reference_text": "gold.reference"}), FIELDS, (), is_whole=False)


def test_what_depends_on_the_reference_may_be_declared_so() -> None:
    """
    Then it is read and hidden, as before.
    """
    given = {"fields": {"telemetry.x": "wer"}, "reference_side": ("telemetry.x",)}

    unused: Counter[str] = Counter()

    assert {} == FieldMap(source(**given), FIELDS, (), is_whole=False).visible({"x": 1}, unused)
    assert {"telemetry.x": 1} == unused
