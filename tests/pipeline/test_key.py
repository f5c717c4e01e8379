"""Which changes make a training or an evaluation stale, and which do not: by their keys, without training."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.recipes import finished
from thunder_train.build import environment, key
from thunder_train.build.key import Stage
from thunder_train.config import load
from thunder_train.config.project import Recipe
from thunder_train.core import files
from thunder_train.launch import scripts
from thunder_train.pipeline import graph

RECIPE, PROJECT, TEMPLATE, HOSTS = (
    "recipes/smoke.toml",
    "thunder.toml",
    "templates/launch.sh.j2",
    "runs/smoke/hostfile.json",
)
EVALUATION = "templates/evaluate.sh.j2"
NEW = "max_seq_len = 512"
"""A line of [train], before which another key can be put."""
LOCAL = "ranks = 2"
LAST = '  "$@"'


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose recipe smoke has been built, with small files. Tests copy it and never change it."""
    place = tmp_path_factory.mktemp("finished")
    finished(place)
    return place


@pytest.fixture
def project(finished_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it; the current folder."""
    shutil.copytree(finished_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for name in ("train", "valid", "test", "decisions"):
        files.write_text(tmp_path / f"data/agp-nko-corrections/{name}.jsonl", "{}\n")
    render(recipe())
    environment.whole.cache_clear()
    environment.part.cache_clear()
    yield tmp_path
    environment.whole.cache_clear()
    environment.part.cache_clear()


def recipe(name: str = "smoke") -> Recipe:
    """A recipe of the project in the current folder, loaded again."""
    return load.load(Path()).recipes[name]


def render(of: Recipe) -> None:
    """What the stages scripts and hostfile make."""
    for script in ("launch.sh", "evaluate.sh"):
        files.write_text(Path(f"runs/{of.name}/{script}"), scripts.rendered(of, script))


def edit(file: str, old: str, new: str) -> None:
    """Replace a text that must be there."""
    text = Path(file).read_text(encoding="utf-8")
    assert old in text
    Path(file).write_text(text.replace(old, new, 1), encoding="utf-8")


def keys(name: str = "smoke") -> tuple[str, str, str]:
    """Of a recipe as it is now, its scripts rendered: the keys of training and evaluation, and that of checkpoints."""
    now = recipe(name)
    render(now)
    stages: list[Stage] = [graph.train(now), graph.evaluate(now)]
    train, evaluate = (stage.key(stage.parts()) for stage in stages)
    return train, evaluate, stages[0].partial_key()


OPERATIONAL = {
    **{
        line: (RECIPE, NEW, f"{line}\n{NEW}")
        for line in ("max_restarts = 3", "keep_checkpoints = 9", "stall_timeout_s = 9", "start_timeout_s = 9")
    },
    "report_to": (RECIPE, NEW, f'report_to = ["wandb"]\n{NEW}'),
    "save_every": (RECIPE, "save_every = 2", "save_every = 1"),
    "description": (RECIPE, "Two local ranks", "Two ranks"),
    "timeout of a gate": (RECIPE, "[evaluate]", "[evaluate]\ngate.timeout_s = 9"),
    "variables of a gate": (RECIPE, "[evaluate]", '[evaluate]\ngate.env = ["LC_ALL"]'),
    "[build] strict": (RECIPE, "[evaluate]", '[build]\nenvironment = "strict"\n[evaluate]'),
    "[build] none": (RECIPE, "[evaluate]", '[build]\nenvironment = "none"\n[evaluate]'),
    "[build] tolerance": (RECIPE, "[evaluate]", "[build]\ntolerance = 0.5\n[evaluate]"),
    "promotion": (RECIPE, "[evaluate]", "[promotion]\nmin_rows = 9\n[evaluate]"),
    "folder and python of hosts": (PROJECT, LOCAL, f'folder = "x"\npython = "py"\n{LOCAL}'),
    "ssh names and addresses": (
        PROJECT,
        LOCAL,
        'hosts = [{ ssh = "a", ips = ["10.0.0.1"], rdma = ["", "x"] }, { ssh = "b", ips = ["10.0.0.2"] }]',
    ),
    "a variable of a link": (PROJECT, LOCAL, f'{LOCAL}\nenvs = ["NCCL_SOCKET_IFNAME=en5"]'),
    "another cluster's address": (PROJECT, "10.0.5.1", "10.0.5.9"),
    "another builder of the same rows": ("data/agp-nko-corrections/manifest.json", "{", "{ "),
    "a comment in the template": (TEMPLATE, "set -euo", "# why\nset -euo"),
    "a comment behind a command": (TEMPLATE, "set -euo pipefail", "set -euo pipefail  # 'so'"),
    "layout of the template": (TEMPLATE, "  {{ flag }} {{ value }}", "\t{{ flag }}    {{ value }}"),
    "an empty line": (TEMPLATE, "set -euo", "\n\nset -euo"),
    "a flag for the logs": (TEMPLATE, LAST, "  --log-dir /tmp/x --max-restarts 4 " + LAST),
    "a flag as it is": (TEMPLATE, LAST, "  --seed 0 " + LAST),
    "a comment in evaluate.sh.j2": (EVALUATION, "set -euo", "# why\nset -euo"),
}


@pytest.mark.parametrize("case", sorted(OPERATIONAL))
def test_how_it_runs_makes_nothing_stale(project: Path, case: str) -> None:
    """
    Whoever raises a timeout after a night's stall must not train again, and goes on from the last checkpoint.
    """
    before = keys()

    edit(*OPERATIONAL[case])

    assert before == keys()


NUMERIC = {
    line: (RECIPE, old, new)
    for line, old, new in [
        ("learning rate", "learning_rate = 1e-6", "learning_rate = 1e-5"),
        ("steps", "num_iters = 4", "num_iters = 5"),
        ("validations", "eval_every = 2", "eval_every = 1"),
        ("logged losses", "log_every = 1", "log_every = 2"),
        ("seed", NEW, f"seed = 1\n{NEW}"),
        ("packing", NEW, f'packing = "never"\n{NEW}'),
        ("strategy", 'strategy = "data"', 'strategy = "tensor"'),
        ("longest row", NEW, "max_seq_len = 511"),
    ]
} | {
    "ranks": (PROJECT, LOCAL, "ranks = 1"),
    "backend": (PROJECT, 'backend = "ring"\nranks', 'backend = "mpi"\nranks'),
    "weights": (
        PROJECT,
        LOCAL,
        'hosts = [{ ssh = "a", ips = ["10.0.0.1"], weight = 2.0 }, { ssh = "b", ips = ["10.0.0.2"] }]',
    ),
    "a variable of the BLAS": (PROJECT, LOCAL, f'{LOCAL}\nenvs = ["OPENBLAS_NUM_THREADS=2"]'),
    "training rows": ("data/agp-nko-corrections/train.jsonl", "{}", '{"a": 1}'),
    "validation rows": ("data/agp-nko-corrections/valid.jsonl", "{}", '{"a": 1}'),
    "model lock": ("runs/models/nano/model.lock.json", "d" * 8, "e" * 8),
    "a flag of the template": (TEMPLATE, LAST, "  --seed 7 " + LAST),
    "a flag with an equals sign": (TEMPLATE, LAST, "  --seed=7 " + LAST),
    "a flag left out": (TEMPLATE, "  {{ flag }} {{ value", "  {{ '--x' if flag == '--seed' else flag }} {{ value"),
    "other rows": (TEMPLATE, LAST, "  --train-data /tmp/x.jsonl " + LAST),
    "a variable before the command": (TEMPLATE, "exec ", "OMP_NUM_THREADS=4 exec "),
    "an exported variable": (TEMPLATE, "exec ", "export OPENBLAS_CORETYPE=Zen\nexec "),
    "another interpreter": (TEMPLATE, ".venv/bin/python}", "/usr/bin/python3}"),
    "another program": (TEMPLATE, "-m thunder_train.launch", "-m other.launch"),
    "a template without quotes": (TEMPLATE, LAST, "  --seed '7 " + LAST),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(NUMERIC))
def test_what_can_change_a_number_makes_the_training_stale(project: Path, case: str) -> None:
    """
    Checkpoints of the other training are not taken either.
    """
    before = keys()

    edit(*NUMERIC[case])

    now = keys()
    assert (True, True) == (before[0] != now[0], before[2] != now[2])


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (RECIPE, "max_tokens = 64", "max_tokens = 63"),
        (RECIPE, "[evaluate]", "[evaluate]\nbatch_size = 3"),
        (RECIPE, "[evaluate]", "[evaluate]\ngate.floor = 3"),
        (EVALUATION, LAST, "  --batch-size 3 " + LAST),
        ("data/agp-nko-corrections/test.jsonl", "{}", '{"a": 1}'),
        ("data/agp-nko-corrections/decisions.jsonl", "{}", '{"a": 1}'),
    ],
)
def test_what_only_the_evaluation_reads_trains_nothing_again(project: Path, file: str, old: str, new: str) -> None:
    """
    Other test rows or another template of evaluate.sh must not cost a training.
    """
    before = keys()

    edit(file, old, new)

    now = keys()
    assert (True, False) == (before[0] == now[0], before[1] == now[1])


def test_another_name_is_the_same_training(project: Path) -> None:
    """
    A renamed recipe takes its result from the run cache, and its unfinished training goes on.
    """
    Path("recipes/renamed.toml").write_text(Path(RECIPE).read_text(encoding="utf-8"), encoding="utf-8")
    for name in ("adapters.safetensors", "adapter_config.json"):
        files.write_text(Path("runs/renamed/adapter") / name, "")

    assert keys() == keys("renamed")


def test_another_environment_is_another_result_but_no_other_checkpoint(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whatever [build] environment compares; a checkpoint of other versions is refused by the training itself.
    """
    before = keys()
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    environment.whole.cache_clear()
    environment.part.cache_clear()

    now = keys()

    assert (False, False, True) == tuple(one == other for one, other in zip(before, now, strict=True))


def test_the_shipped_templates_add_nothing(project: Path) -> None:
    """
    Else every manifest would have additions.
    """
    text = scripts.rendered(recipe(), "launch.sh")

    for name in ("launch.sh", "evaluate.sh"):
        assert {} == scripts.additions(recipe(), name, scripts.rendered(recipe(), name))
    changed = re.sub(r"--seed \d+", "--seed 5", text).replace("set -e", "ulimit -n 9\nset -e")
    assert {"ulimit -n 9": "", "--seed": "5"} == scripts.additions(recipe(), "launch.sh", changed)


def test_a_missing_script_is_named(project: Path) -> None:
    """
    It is rendered before a training, unless a person asks for that stage alone.
    """
    Path("runs/smoke/launch.sh").unlink()

    with pytest.raises(FileNotFoundError, match=r"runs/smoke/launch\.sh"):
        graph.train(recipe()).parts()


def test_a_key_of_one_of_several_tables_is_named() -> None:
    """
    A dataset has a table for each source; the whole list, old and new, would hide what changed.
    """
    old = {"sources": [{"path": "a", "revision": "main"}, {"path": "b"}], "use": ["x"]}
    new = {"sources": [{"path": "a", "revision": "v2"}, {"path": "b"}], "use": ["y"]}

    assert ["sources[0].revision: 'main' -> 'v2'", "use: ['x'] -> ['y']"] == [*key.differences(old, new)]
