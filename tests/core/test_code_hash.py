"""Which code counts as an input of a stage, and which changes of it count."""

from pathlib import Path

import pytest

from thunder_train.core import code_hash
from thunder_train.core.stat_cache import StatCache


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("x = 1  # why\n", "x = 1\n\n", True),
        ('def f():\n    """Old."""\n    return 1\n', 'def f():\n    """New."""\n    return (1)\n', True),
        ("x = 1\n", "x = 2\n", False),
        ("x = '1'\n", "x = 1\n", False),
        ("def f(a, b): pass\n", "def f(b, a): pass\n", False),
        ('add("--rank", help="inner width")\n', 'add("--rank", help="width of the product")\n', True),
    ],
)
def test_the_digest_changes_only_with_what_the_code_does(tmp_path: Path, before: str, after: str, same: bool) -> None:
    """
    A comment does not cause a training; another order of arguments does.
    """
    (tmp_path / "a.py").write_text(before)
    (tmp_path / "b.py").write_text(after)

    assert same == (code_hash.code_digest(tmp_path / "a.py") == code_hash.code_digest(tmp_path / "b.py"))


def test_the_code_of_a_stage_is_all_that_its_module_imports(tmp_path: Path) -> None:
    """
    A list kept by hand would miss one. Code that starts, watches and reports a process decides no number.
    """
    cache = StatCache(tmp_path / "stats.sqlite")
    training = code_hash.hashes(("worker.train.result",), cache)
    evaluation = code_hash.hashes(("worker.evaluation", "evaluate.conditions"), cache)

    assert {
        f"thunder_train/worker/{name}.py" for name in ("train/loop", "train/step", "batching/tokens", "model")
    } <= set(training)
    assert {"thunder_train/evaluate/gate.py", "thunder_train/worker/evaluation.py"} <= set(evaluation)
    for hashes in (training, evaluation):
        neutral = ("launch/", "cluster/", "agent/", "pipeline/", "cli/", "core/ssh", "core/console")
        neutral += ("worker/bootstrap", "worker/watchdog", "worker/trackers", "worker/__main__")
        assert [] == [path for path in hashes if path.removeprefix("thunder_train/").startswith(neutral)]


def test_a_start_that_is_no_module_is_refused(tmp_path: Path) -> None:
    """
    A renamed module would silently stop counting as an input.
    """
    with pytest.raises(LookupError, match=r"no such module: thunder_train\.worker\.gone"):
        code_hash.hashes(("worker.gone",), StatCache(tmp_path / "stats.sqlite"))
