"""The training step in one process."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.worker.train.conftest import Make, digest, trained
from thunder_train import ThunderError
from thunder_train.worker.train.metrics_log import MetricsLog

pytestmark = pytest.mark.mlx


def validations(monkeypatch: pytest.MonkeyPatch, *losses: float) -> None:
    """Let the validations of a run have these losses, the base's first."""
    from thunder_train.worker.train import loop
    from thunder_train.worker.train.validation import Validation

    left = iter(losses)
    monkeypatch.setattr(loop, "validate", lambda *_: Validation(next(left), 5))


def test_validating_more_often_changes_nothing_in_training(run: Make) -> None:
    """
    In mlx-lm validation draws from the same random state as training.
    """
    digests = []
    for eval_every in (1, 3):
        one = run(dropout=0.3, steps=3, eval_every=eval_every)
        trained(one)
        digests.append(digest(one))

    assert digests[0] == digests[1]


def test_the_best_adapter_is_kept_apart_from_the_last(run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The first users' best adapter came at step 1,400 of 3,000, and the last one was kept.
    """
    from thunder_train.worker import adapter

    validations(monkeypatch, 4.0, 3.0, 1.0, 2.0, 2.5)
    one = run(steps=4)
    state = trained(one)

    assert (2, 1.0, 2) == (state.progress.best_step, state.progress.best_loss, state.progress.without_gain)
    assert adapter.tensor_digest(state.best) != digest(one)


def test_a_run_without_gain_ends_early_and_says_so(
    run: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """
    `patience` validations without a better loss end it; all ranks see the same loss, so all end together.
    """
    validations(monkeypatch, 4.0, 3.0, 3.0, 3.1, 0.0)

    assert 3 == trained(run(metrics=tmp_path / "metrics.jsonl", steps=9, patience=2)).progress.step
    expected = "step 3/9  stopped early: the best validation loss was at step 1, "
    expected += "and 2 validations since then were no better (patience 2)"
    assert expected == capsys.readouterr().out.splitlines()[-1]


def test_the_base_is_the_best_where_no_step_improves_it(run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The best of several bad adapters would be worse than none: the one of step 0 changes nothing.
    """
    validations(monkeypatch, 1.0, 1.5, 1.0)
    one = run()
    untrained = digest(one)
    state = trained(one)
    from thunder_train.worker import adapter

    assert (0, 1.0, 2) == (state.progress.best_step, state.progress.best_loss, state.progress.without_gain)
    assert [[0, 1.0], [1, 1.5], [2, 1.0]] == state.progress.losses["valid"]
    assert untrained == adapter.tensor_digest(state.best) != digest(one)


@pytest.mark.parametrize("stopped_at", [0, 3])
def test_a_run_that_goes_on_equals_one_that_never_stopped(run: Make, stopped_at: int) -> None:
    """
    Adapter, both moments, step and losses, to the bit; with dropout, which depends on the step alone. The base is
    validated once.
    """
    from thunder_train.worker.train import checkpoint, loop

    whole = run(steps=6, dropout=0.2, schedule="cosine", warmup_steps=2, eval_every=2)
    expected = loop.checkpoint(whole, trained(whole))
    expected.progress.metrics.clear()  # they contain times
    first = run(steps=6, dropout=0.2, schedule="cosine", warmup_steps=2, eval_every=2)
    state = loop.start(first, None)
    assert loop.train(replace(first, stop_asked=lambda: state.progress.step == stopped_at), state)
    kept = checkpoint.decode(checkpoint.encode(loop.checkpoint(first, state)))

    second = run(steps=6, dropout=0.2, schedule="cosine", warmup_steps=2, eval_every=2)
    second = replace(second, log=MetricsLog(None, kept.progress))
    state = loop.start(second, kept)
    loop.train(second, state)

    found = loop.checkpoint(second, state)
    found.progress.metrics.clear()
    assert checkpoint.encode(expected) == checkpoint.encode(found)


@pytest.mark.parametrize(
    ("schedule", "expected"), [("constant", [0.5, 1, 1, 1, 1]), ("linear", [0.5, 1, 1, 2 / 3, 1 / 3])]
)
def test_the_learning_rate_counts_optimizer_steps(schedule: str, expected: Any) -> None:
    """
    In mlx-lm gradient accumulation stretches the schedule.
    """
    import mlx.core as mx

    from thunder_train.worker.train.step import schedule as learning_rates

    rate = learning_rates(schedule, 1.0, steps=5, warmup=2)

    assert [pytest.approx(value) for value in expected] == [float(rate(mx.array(step))) for step in range(5)]


def test_checkpointed_blocks_compute_the_same_gradient(run: Make) -> None:
    """
    It trades time for memory and changes no number. mlx-lm patches the first block's class only.
    """
    import mlx.core as mx

    from thunder_train.worker import model
    from thunder_train.worker.train import step

    plain, checkpointed = run(), run()
    classes = {type(block): type(block).__call__ for block in checkpointed.model.layers}
    gradients = [step.local_sums(plain.model, plain.rows.step(0))[0]]
    try:
        model.checkpoint_blocks(checkpointed.model)
        gradients.append(step.local_sums(checkpointed.model, checkpointed.rows.step(0))[0])
    finally:
        for kind, call in classes.items():
            kind.__call__ = call

    assert mx.allclose(*gradients, rtol=1e-5, atol=1e-6).item()


def test_flattening_a_gradient_can_be_undone(run: Make) -> None:
    """
    All tensors travel between ranks as one message.
    """
    from mlx.utils import tree_flatten

    from thunder_train.worker import model
    from thunder_train.worker.train import step

    one = run()
    tree = one.model.trainable_parameters()
    again = step.named(step.flatten(tree), model.trainable(one.model))

    assert all((again[name] == leaf).all().item() for name, leaf in tree_flatten(tree))


def test_a_rank_without_a_row_sends_zeros(run: Make) -> None:
    """
    The last batch of an epoch may be too short for all ranks, and a sum needs every one of them.
    """
    from thunder_train.worker import model
    from thunder_train.worker.train import step

    one = run()
    gradient, loss, tokens = step.local_sums(one.model, [])

    assert (model.trainable_parameters(one.model), 0.0, 0.0, 0) == (
        gradient.size,
        gradient.abs().sum().item(),
        loss.item(),
        tokens,
    )


class Recorder:
    """An optimizer that keeps what it is given."""

    state: tuple[()] = ()

    def update(self, model: Any, gradients: Any) -> None:
        """Keep the gradient."""
        from thunder_train.worker.train import step

        self.gradient = step.flatten(gradients)


def fifties(one: Any) -> Any:
    """A step in which every number of the gradient is 50, over 5 tokens."""
    import mlx.core as mx

    from thunder_train.worker.train import step

    gradient = mx.ones(step.local_sums(one.model, [])[0].size) * 50
    return step.Totals(gradient, 1.0, tokens=5, finite=(True,), stop=False, busy_s=(0.0,), exchange_s=0.0)


def test_a_long_gradient_is_clipped_to_the_limit(run: Make) -> None:
    """
    A single odd row must not ruin the adapter.
    """
    import mlx.core as mx

    from thunder_train.worker.train import step

    one, recorder = run(), Recorder()
    norm = step.update(one.model, recorder, fifties(one), 0.5)

    assert pytest.approx(10 * recorder.gradient.size**0.5) == norm
    assert pytest.approx(0.5, rel=1e-4) == mx.linalg.norm(recorder.gradient).item()


def test_the_gradient_is_the_mean_over_all_target_tokens(run: Make) -> None:
    """
    Sums cross ranks and are divided once, by the tokens of all ranks; 0 turns clipping off.
    """
    from thunder_train.worker.train import step

    one, recorder = run(), Recorder()
    step.update(one.model, recorder, fifties(one), 0)

    assert {10.0} == set(recorder.gradient.tolist())


def test_a_run_without_any_applied_step_has_failed(run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Its adapter is the untrained one, and a run that reports it as its result tells a lie.
    """
    import mlx.core as mx

    from thunder_train.worker import model
    from thunder_train.worker.train import step

    one = run(steps=2)
    monkeypatch.setattr(step, "flatten", lambda tree: mx.zeros(model.trainable_parameters(one.model)) + mx.nan)
    with pytest.raises(ThunderError) as caught:
        trained(one)

    expected = "training: no step was applied: all 2 were skipped; "
    assert expected + "lower the learning rate, or look at the rows named above and at the base model" == str(
        caught.value
    )


def test_a_step_that_is_not_finite_is_skipped_and_counted(
    run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    One NaN would make every later weight a NaN; users of mlx-lm lost three runs that way.
    """
    import mlx.core as mx

    from thunder_train.worker import model
    from thunder_train.worker.train import loop, step

    one = run(metrics=tmp_path / "metrics.jsonl", steps=1)
    before = digest(one)
    monkeypatch.setattr(step, "flatten", lambda tree: mx.zeros(model.trainable_parameters(one.model)) + mx.nan)
    state = loop.start(one, None)
    loop.one_step(one, state)
    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    ids = [one.rows.examples[i].row_id for i in one.rows.rows(0)]

    assert (1, before) == (state.progress.skipped, digest(one))
    assert ["skip"] == [event["event"] for event in events]
    assert ids == events[0]["rows"]
    line = f"step 1/1  skipped: the gradient is not finite on rank 0; rows {', '.join(ids)}"
    assert line == capsys.readouterr().out.splitlines()[0]


def test_too_many_skipped_steps_in_a_row_end_the_run(run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A run that only skips would look busy all night; the rows of the last step are named.
    """
    import mlx.core as mx

    from thunder_train.worker import model
    from thunder_train.worker.train import step

    one = run(steps=30, eval_every=99, max_skipped=3)
    monkeypatch.setattr(step, "flatten", lambda tree: mx.zeros(model.trainable_parameters(one.model)) + mx.nan)
    with pytest.raises(ThunderError) as caught:
        trained(one)

    ids = ", ".join(one.rows.examples[i].row_id for i in one.rows.rows(2))
    expected = (
        "step 3: 3 steps in a row had a gradient that is not finite on rank 0; "
        f"the last one's rows: {ids}; lower the learning rate, or look at these rows and the base model"
    )
    assert expected == str(caught.value)


def test_a_rank_that_is_asked_to_stop_stops_all_before_the_update(run: Make) -> None:
    """
    The request is part of the gradient's message, so no rank waits for one that left; the step is not counted.
    """
    from thunder_train.worker.train import loop

    one = run(steps=5, stop=True)
    state = loop.start(one, None)

    assert (True, 0) == (loop.train(one, state), state.progress.step)
