"""Prompt templates: what they may show."""

from pathlib import Path

import pytest

from tests.helpers.inputs import source
from tests.helpers.material import dataset
from thunder_train import ThunderError
from thunder_train.data.prompts import Prompts


def prompts(folder: Path, text: str, *telemetry: str) -> Prompts:
    """The prompts of a dataset with one template, whose source declares telemetry."""
    (folder / "prompt.j2").write_text(text, encoding="utf-8")
    return Prompts(dataset(sources=(source(kind="rows", telemetry=telemetry),)), folder)


def refusal(folder: Path, text: str, *telemetry: str) -> list[str]:
    """The lines of the error that such a template gives."""
    with pytest.raises(ThunderError) as error:
        prompts(folder, text, *telemetry)
    return str(error.value).splitlines()


def test_a_prompt_shows_what_was_heard(tmp_path: Path) -> None:
    """
    All of it: the text, its rivals, the partition, and numbers of the recogniser.
    """
    made = prompts(
        tmp_path, '{{ hypotheses | join("/") }} {{ partition }} {{ telemetry.jerk }} {{ telemetry["a"].b }}', "a"
    )
    values = {"hypotheses": ("x", "y"), "partition": "stable", "telemetry": {"jerk": 0.5, "a": {"b": 1}}}

    assert "x/y stable 0.5 1" == made.render("in:1", asr_text="x", **values)


@pytest.mark.parametrize(
    "text",
    [
        "{{ telemetry.mood }}",
        "{{ telemetry['mood'] }}",
        "{{ telemetry.get('mood', 0) }}",
        "{% if telemetry.mood is defined %}x{% endif %}",
        "{{ telemetry.mood.deep[0] }}",
    ],
)
def test_telemetry_that_no_source_lets_through_is_refused(tmp_path: Path, text: str) -> None:
    """
    Otherwise it would be missing in every row, and somebody would believe that the model sees it.
    """
    assert (
        "prompt.j2:1: shows telemetry.mood, which no source lets prompts see; if it is known without the reference, "
        'add telemetry = ["mood"] to its source; else take it out'
    ) in refusal(tmp_path, text)
    prompts(tmp_path, text, "mood")


def test_what_knows_the_reference_is_refused_with_its_line(tmp_path: Path) -> None:
    """
    All such names of a template at once; no declaration would help.
    """
    assert [
        "prompt.j2:3: shows telemetry.is_correct, which knows the reference; take it out",
        "prompt.j2:1: shows telemetry.wer, which knows the reference; take it out",
    ] == refusal(tmp_path, "{{ telemetry.wer }}\n{{ asr_text }}\n{{ telemetry.is_correct }}", "wer")


def test_telemetry_as_a_whole_may_be_shown(tmp_path: Path) -> None:
    """
    Only its allowed members are in it.
    """
    text = "{% for name, value in telemetry.items() %}{{ name }}={{ value }}{% endfor %}"

    assert "jerk=1" == prompts(tmp_path, text).render("in:1", telemetry={"jerk": 1})


def test_a_row_that_lacks_a_value_is_named(tmp_path: Path) -> None:
    """
    A strict template tells what it misses; a default is the template's own decision.
    """
    with pytest.raises(ThunderError) as error:
        prompts(tmp_path, "{{ telemetry.jerk }}").render("in:1", telemetry={})

    assert (
        "prompt.j2: row in:1: 'dict object' has no attribute 'jerk'; "
        "a prompt may use asr_text, hypotheses, partition and telemetry"
    ) == str(error.value)


def test_what_a_template_sets_for_one_row_is_unknown_to_the_next(tmp_path: Path) -> None:
    """
    All rows share one context, because making it would take as long as the rest of a prompt.
    """
    text = "{% if asr_text == 'one' %}{% set kept = asr_text %}{% endif %}{{ asr_text }} {{ kept is defined }}"
    rendering, values = prompts(tmp_path, text), {"hypotheses": (), "partition": "", "telemetry": {}}

    shown = [rendering.render("in:1", asr_text=heard, **values) for heard in ("one", "two", "one")]

    assert ["one True", "two False", "one True"] == shown
