"""The matrix of the proof: what it covers, and that each stage is compared by itself."""

from itertools import combinations
from pathlib import Path

import pytest

from proof import matrix
from proof.matrix import STAGES, Tree
from tests.helpers.project_copy import PROJECT
from thunder_train import ThunderError
from thunder_train.config import load
from thunder_train.core import revisions

FILES = {
    "data": "data/rows/train.jsonl",
    "model": "runs/models/nano/files/model.safetensors",
    "train": "runs/lora/adapter/adapters.safetensors",
    "evaluate": "runs/lora/eval.json",
}


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Tree, Tree]:
    """Two empty folders: with the earlier code and with the present code."""
    return Tree(tmp_path / "before"), Tree(tmp_path / "now")


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Stages whose present code gives other outputs. A stage's output is its name and what it read."""
    others: set[str] = set()

    def make(tree: Tree, stage: str) -> None:
        earlier = [tree.path / FILES[each] for each in STAGES[: STAGES.index(stage)]]
        read = "".join(path.read_text() for path in earlier)
        (tree.path / FILES[stage]).parent.mkdir(parents=True, exist_ok=True)
        (tree.path / FILES[stage]).write_text(f"{stage}{'!' * (stage in others and tree.path.name == 'now')} {read}")

    monkeypatch.setattr(matrix, "make", make)
    monkeypatch.setattr(matrix, "EXPECTED", {stage: (path,) for stage, path in FILES.items()})
    monkeypatch.setattr(matrix, "_resume_from_the_earlier_code", lambda *_: None)
    return others


def test_every_stage_with_a_revision_is_in_the_matrix() -> None:
    """
    A revision that nothing proves would be believed.
    """
    assert [*revisions.CODE] == [*STAGES] == [*matrix.OUTPUTS]


def test_every_two_kinds_of_a_training_meet(tmp_path: Path) -> None:
    """
    Strategy with method, base model and packing; the recipes are valid, and two of them are also resumed.
    """
    (tmp_path / "base").mkdir()
    tree = Tree(tmp_path / "tree")
    (tree.path / "recipes").mkdir(parents=True)

    matrix.place(tree, PROJECT, tmp_path / "base")

    recipes = load.load(tree.path).recipes
    kinds = {
        name: (
            f"{recipe.train.strategy} {recipe.train.fine_tune_type}",
            "4-bit" if recipe.model.name == matrix.QUANTIZED else "float32",
            "packed" if recipe.train.packing == "auto" else "padded",
        )
        for name, recipe in recipes.items()
    }
    pairs = {pair for kind in kinds.values() for pair in combinations(kind, 2)}
    methods, bases, packings = ({kind[part] for kind in kinds.values()} for part in range(3))
    assert {"data lora", "data dora", "tensor lora"} == methods
    assert len(methods) * len(bases) + len(methods) * len(packings) + len(bases) * len(packings) == len(pairs)
    assert {"data", "tensor"} == {recipes[name].train.strategy for name in matrix.RESUMED}


@pytest.mark.parametrize("stage", STAGES)
def test_other_outputs_of_a_stage_are_found(trees: tuple[Tree, Tree], changed: set[str], stage: str) -> None:
    """
    And of no stage after it, which reads what the earlier code made.
    """
    changed.add(stage)

    assert [f"{stage}: {FILES[stage]}"] == matrix.compared(*trees, STAGES)


@pytest.mark.parametrize("raised", STAGES)
def test_a_raised_stage_hides_no_change_after_it(trees: tuple[Tree, Tree], changed: set[str], raised: str) -> None:
    """
    The stages after it are compared on the outputs of the earlier code.
    """
    changed |= {*STAGES}
    others = [stage for stage in STAGES if stage != raised]

    assert [f"{stage}: {FILES[stage]}" for stage in others] == matrix.compared(*trees, others)


def test_equal_outputs_differ_in_nothing(trees: tuple[Tree, Tree], changed: set[str]) -> None:
    """
    The case for which the proof is made.
    """
    assert (set(), []) == (changed, matrix.compared(*trees, STAGES))


def test_outputs_that_nobody_made_are_no_proof(trees: tuple[Tree, Tree], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What neither version made is equal, and says nothing.
    """
    monkeypatch.setattr(matrix, "make", lambda *_: None)

    with pytest.raises(ThunderError) as raised:
        matrix.compared(*trees, ["train"])

    lacking = "data/agp-nko-corrections/manifest.json, data/agp-nko-corrections/train.jsonl"
    assert f"data: the matrix made no {lacking}; this is an error in proof/matrix.py" == str(raised.value)


def test_every_run_of_the_matrix_must_have_its_outputs() -> None:
    """
    Each of its adapters and evaluations, and each resumed training.
    """
    trained, evaluated = ({path.split("/")[1] for path in matrix.EXPECTED[stage]} for stage in ("train", "evaluate"))

    assert {*matrix.RUNS, "proof"} == trained
    assert {*matrix.RUNS} == evaluated
    assert [f".thunder/proof/{name}/own/adapter/adapters.safetensors" for name in matrix.RESUMED] == [
        path for path in matrix.EXPECTED["train"] if path.startswith(".")
    ]


@pytest.mark.parametrize("lacking", [0, 1])
def test_an_output_of_one_side_alone_differs(trees: tuple[Tree, Tree], lacking: int) -> None:
    """
    A file more or less is a change, too.
    """
    path = trees[1 - lacking].path / FILES["evaluate"]
    path.parent.mkdir(parents=True)
    path.write_text("{}")

    assert [FILES["evaluate"]] == matrix.unequal(*trees, "evaluate")


@pytest.mark.parametrize(("then", "now", "expected"), [("a", "b", []), ("a", "a", [])])
def test_the_code_in_a_datasets_manifest_is_no_output(
    trees: tuple[Tree, Tree], then: str, now: str, expected: list[str]
) -> None:
    """
    It names the version whose outputs are compared.
    """
    for tree, code in zip(trees, (then, now), strict=True):
        path = tree.path / "data/rows/manifest.json"
        path.parent.mkdir(parents=True)
        path.write_text(f'{{"builder": {{"code": "{code}"}}, "splits": {{}}}}')

    assert expected == matrix.unequal(*trees, "data")


def test_a_commit_that_holds_other_code_than_it_records_proves_nothing(
    trees: tuple[Tree, Tree], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Its outputs are those of no revision.
    """
    monkeypatch.setattr(Tree, "run", lambda *_: '["train"]\n')

    with pytest.raises(ThunderError) as raised:
        matrix._require_recorded(trees[0], "0123456789abcdef", ["train", "evaluate"])

    assert (
        "commit 0123456789ab: its revisions.json does not record the code of train that it holds; raise these stages"
        == str(raised.value)
    )
    matrix._require_recorded(trees[0], "0123456789abcdef", ["evaluate"])
