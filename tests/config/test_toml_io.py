"""Writing TOML: what does not read back to the same values is an error."""

import pytest

from thunder_train import ThunderError
from thunder_train.config.toml_io import as_toml


@pytest.mark.parametrize("text", ["\x1b[2J", "\x1b", "a\x1b[0m"])
def test_a_control_character_that_toml_cannot_write_is_told(text: str) -> None:
    """
    A manifest of anyone may hold one; the library that writes TOML fails of some of them.
    """
    with pytest.raises(ThunderError, match=r"^recipes/a\.toml: cannot be written as TOML; "):
        as_toml({"key": text}, "recipes/a.toml")
