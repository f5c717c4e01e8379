"""Arguments of a chat template, from thunder.toml, from a flag and from a manifest of anyone."""

import re
import sys

import pytest

from thunder_train.core import template_arguments as arguments


def test_one_text_stands_for_equal_arguments() -> None:
    """
    The text is part of a training's identity; it is ASCII, so no shell or locale can change it.
    """
    given = {"style": "ߒߞߏ 'x' $HOME\n", "enable_thinking": False, "depth": 2, "share": 0.5}

    text = arguments.text_of(given)

    assert text == arguments.text_of(dict(reversed(given.items())))
    assert (True, True) == (text.isascii(), text.isprintable())
    assert given == arguments.parse(text)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("messages", "x", "is given to every chat template by the program itself"),
        ("add_generation_prompt", True, "is given to every chat template by the program itself"),
        ("tokenize", True, "is given to every chat template by the program itself"),
        ("tools", "x", "is given to every chat template by the program itself"),
        ("a-b", True, "is no name of an argument"),
        ("", True, "is no name of an argument"),
        ("ß", True, "is no name of an argument"),
        ("class", True, "is no name of an argument"),
        ("a" * 65, True, "is no name of an argument"),
        ("x", None, "is neither text, number, true nor false"),
        ("x", [1], "is neither text, number, true nor false"),
        ("x", float("nan"), "is nan"),
        ("x", 1 << 63, "is a number of more than 64 bits"),
        ("x", "False", "is the text 'False'"),
        ("x", "a" * 10_001, "has 10001 characters"),
    ],
)
def test_what_no_template_can_be_given_is_named(name: str, value: object, what: str) -> None:
    """
    transformers takes some names for itself: a template would get other messages than the rows'.
    """
    assert [(name, what)] == [(each.name, each.what) for each in arguments.problems({name: value})]


def test_all_together_have_a_bound_too() -> None:
    """
    They travel as one word of a command line.
    """
    many = {f"a{number}": True for number in range(65)}
    long = {f"a{number}": "ߒ" * 9_000 for number in range(3)}

    assert ["has 65 arguments"] == [each.what for each in arguments.problems(many)]
    assert ["has more than 65536 characters as JSON"] == [each.what for each in arguments.problems(long)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", 'must be a JSON object, as {"enable_thinking": false}'),
        ("{", "is not JSON: "),
        ("[" * 9_000, "is nested too deep" if sys.version_info < (3, 14) else "is not JSON: "),
        ('{"a": NaN}', "a is nan: give a finite number"),
        ('{"a": 1, "a": 2}', "gives 'a' twice"),
        ('{"tools": 1}', "tools is given to every chat template by the program itself: leave it out"),
        (" " * 70_000, "has more than 65536 characters"),
    ],
)
def test_a_text_that_gives_no_arguments_is_refused(text: str, what: str) -> None:
    """
    The flag may come from a person or from a manifest of anyone.
    """
    with pytest.raises(ValueError, match=f"^{re.escape(what)}"):
        arguments.parse(text)
