"""ThunderError: the text of a mistake."""

import pytest

from thunder_train import PROGRAM, ThunderError, raise_all


def test_a_command_is_named_as_the_user_would_start_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    There is no ./doit in a project of an installed package.
    """
    given = ("run `./doit x` first", "here", "run `./doit y`")
    monkeypatch.delenv(PROGRAM, raising=False)
    assert "here: run `./doit x` first; run `./doit y`" == str(ThunderError(*given))
    monkeypatch.setenv(PROGRAM, "thunder")
    error = ThunderError(*given)

    assert "here: run `thunder x` first; run `thunder y`" == str(error)
    assert ("run `thunder x` first", "here", "run `thunder y`") == (error.what, error.where, error.hint)


def test_an_error_of_several_keeps_its_parts() -> None:
    """
    A program reads each problem with its place and its hint.
    """
    one, two, three = ThunderError("a", "x", "do a"), ThunderError("b"), ThunderError("c")
    with pytest.raises(ThunderError) as inner:
        raise_all([one, two])
    with pytest.raises(ThunderError) as outer:
        raise_all([inner.value, three])

    assert ((one, two, three), (one,)) == (outer.value.problems, one.problems)
