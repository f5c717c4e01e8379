"""Writing TOML: what does not read back to the same values is an error."""

import pytest

from thunder_train import ThunderError
from thunder_train.config.toml_io import as_toml


@pytest.mark.parametrize("text", ["\x1b[2J", "\x1b", "a\x00b", "\x7f"])
def test_a_control_character_is_written_or_refused(text: str) -> None:
    """
    A manifest of anyone may hold one; the library that writes TOML fails of some of them.
    """
    try:
        written = as_toml({"key": text}, "recipes/a.toml")
    except ThunderError as error:
        assert str(error).startswith("recipes/a.toml: cannot be written as TOML; ")
    else:
        assert written.isprintable() or written.rstrip("\n").isprintable()
