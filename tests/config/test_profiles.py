"""[profiles.NAME]: the error rates of the user's, in thunder.toml and in recipes."""

from pathlib import Path
from typing import Any

import pytest

from tests.config.conftest import PROJECT, RECIPE, problems
from thunder_train.config.load import load
from thunder_train.config.profiles import PROFILES, Profile
from thunder_train.config.project import deciding
from thunder_train.evaluate import error_rates

LOOSE = '[profiles.loose]\nunit = "word"\ncase = "folded"\npunctuation = "removed"\n'


def recipe(project: Path, lines: str) -> None:
    """Write the recipe with an [evaluate] table."""
    (project / "recipes/good.toml").write_text(RECIPE + lines)


def test_a_profile_of_thunder_toml_is_every_recipes(project: Path) -> None:
    """A group's definition is written once; a recipe may add one of its own, and decide by either."""
    (project / "thunder.toml").write_text(PROJECT + LOOSE)
    recipe(project, '[evaluate]\nprofile = "loose"\n[evaluate.profiles.own]\naverage = "per row"\n')
    settings = load(project).recipes["good"].evaluate

    expected = Profile(name="loose", unit="word", case="folded", punctuation="removed")
    assert [*PROFILES, "loose", "own"] == [*error_rates.profiles(settings)]
    assert expected == error_rates.deciding(settings)
    assert "per row" == error_rates.profiles(settings)["own"].average


def test_a_recipe_without_evaluate_has_them_too(project: Path) -> None:
    """[evaluate] may be left out; the recipe's own definition of a name wins."""
    (project / "thunder.toml").write_text(PROJECT + LOOSE)

    assert ["loose"] == [*load(project).recipes["good"].evaluate.profiles]
    recipe(project, "[evaluate.profiles.loose]\n")
    assert Profile(name="loose") == error_rates.profiles(load(project).recipes["good"].evaluate)["loose"]


def test_without_one_a_run_is_what_it_was(project: Path) -> None:
    """A key that nobody uses must not give a run another run_id, nor make it evaluate again."""
    recipes = load(project).recipes

    assert "profiles" not in deciding(recipes["good"].evaluate)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('unit = "letter"', ".unit: is 'letter'; use one of: code point, grapheme cluster, word"),
        ('case = "fold"', ".case: is 'fold'; did you mean 'folded'?"),
        (
            "tones = true",
            ".tones: unknown key 'tones'; use one of: average, case, clamp, limit, marks, "
            "normalisation, punctuation, spaces, unit",
        ),
        ("clamp = true", '.clamp: limits the rate of each row, and the average is pooled; set average = "per row"'),
        ("limit = 2", ".limit: limits nothing without clamp = true; set clamp, or remove limit"),
        (
            'unit = "word"\nspaces = "removed"',
            '.spaces: leaves one word of each text; set it to "kept", or unit to "code point"',
        ),
    ],
)
def test_what_no_profile_can_be_is_refused_where_it_stands(project: Path, lines: str, expected: str) -> None:
    """Once, with its file and key, however many recipes would use it."""
    (project / "thunder.toml").write_text(f"{PROJECT}[profiles.x]\n{lines}\n")
    shared = problems(project)
    (project / "thunder.toml").write_text(PROJECT)
    recipe(project, f"[evaluate.profiles.x]\n{lines}\n")

    assert [f"thunder.toml: profiles.x{expected}"] == shared
    assert [f"recipes/good.toml: evaluate.profiles.x{expected}"] == problems(project)


def test_the_name_of_a_shipped_profile_is_taken(project: Path) -> None:
    """A rate under its name would be another rate."""
    (project / "thunder.toml").write_text(PROJECT + "[profiles.wer-nfc-pooled]\n")

    assert [
        "thunder.toml: profiles.wer-nfc-pooled: is the name of a profile that every project has; choose another name"
    ] == problems(project)


def test_an_unknown_name_lists_what_there_is(project: Path) -> None:
    """Names are long; whoever types one from memory needs the list, their own profiles included."""
    (project / "thunder.toml").write_text(PROJECT + LOOSE)
    recipe(project, '[evaluate]\nprofile = "wer"\n')

    assert [
        "recipes/good.toml: evaluate.profile: no profile is named 'wer'; use one of: cer-codepoint-nfc-pooled, "
        "cer-cluster-nfc-pooled, cer-toneless-nfc-pooled, cer-spaceless-raw-pooled, cer-codepoint-raw-clamped-per-row, "
        "cer-codepoint-raw-per-row, wer-nfc-pooled, wer-whisper-english, wer-bambara-leaderboard, "
        "cer-bambara-leaderboard, loose; or add [profiles.wer] to thunder.toml"
    ] == problems(project)


@pytest.mark.parametrize("value", [3, "x", [], None])
def test_profiles_of_another_type_are_one_problem(project: Path, value: Any) -> None:
    """And no traceback, where thunder.toml has profiles to add to them."""
    (project / "thunder.toml").write_text(PROJECT + LOOSE)
    recipe(project, f"[evaluate]\nprofiles = {value!r}\n" if value is not None else "evaluate = 3\n")

    assert 1 == len(problems(project))
