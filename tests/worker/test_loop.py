"""The training step in one process."""

import json

import pytest

from tests.worker.conftest import TEXTS, row
from thunder_train import ThunderError

pytestmark = pytest.mark.mlx


@pytest.fixture
def run(folder, tokenizer, tmp_path):
    """A function that makes a run of the nano base on eight rows."""
    from thunder_train.worker import loop, model, tokens
    from thunder_train.worker.journal import Journal
    from thunder_train.worker.ranks import Ranks

    rows = tuple(tokens.example(row(i, text), tokenizer, where=f"x:{i}") for i, text in enumerate(TEXTS))

    def make(journal=None, dropout=0.0, **plan):
        loaded, _ = model.load(str(folder / "nano"), "")
        model.add_lora(loaded, model.Lora(num_layers=2, rank=4, dropout=dropout), seed=0)
        values = {"steps": 2, "batch_size": 2, "seed": 0, "learning_rate": 1e-3, "weight_decay": 0.01}
        values |= {"max_grad_norm": 1.0, "log_every": 1, "eval_every": 1, "save_every": 99}
        return loop.Run(
            loaded, rows, rows[:3], loop.Plan(**(values | plan)), Ranks(0, 1), Journal(journal), lambda step: None
        )

    return make


def test_the_loss_counts_targets_only(run):
    """
    mlx-lm's own loss counts one padding token per padded row.
    """
    import mlx.core as mx
    import mlx.nn as nn

    from thunder_train.worker import batches, loop

    one = run()
    pair = one.train[:2]
    by_hand = 0.0
    for each in pair:
        logits = one.model(mx.array([each.tokens[:-1]]))[0]
        losses = nn.losses.cross_entropy(logits, mx.array(each.tokens[1:]))
        by_hand += losses[each.first_target - 1 :].sum().item()

    assert pytest.approx(by_hand, rel=1e-5) == loop.loss_sum(one.model, *batches.pad(pair)).item()


def test_validation_covers_every_row_whatever_the_batch(run):
    """
    A validation number that depends on the batch size cannot be compared with anything.
    """
    from thunder_train.worker.loop import evaluate

    one = run()
    losses = [evaluate(one.model, one.train, size, one.ranks) for size in (1, 3, 8)]

    assert {sum(each.targets for each in one.train)} == {tokens for _, tokens in losses}
    assert [pytest.approx(losses[0][0], rel=1e-6)] * 2 == [loss for loss, _ in losses[1:]]


def test_two_ranks_validate_every_row_once(run):
    """
    The shares of two ranks add up to the whole set. Rank and size are plain numbers: no second process is needed.
    """
    from thunder_train.worker.loop import evaluate
    from thunder_train.worker.ranks import Ranks

    one = run()
    whole, tokens = evaluate(one.model, one.train, 2, one.ranks)
    parts = [evaluate(one.model, one.train, 2, Ranks(rank, 2)) for rank in (0, 1)]

    assert tokens == sum(count for _, count in parts)
    assert pytest.approx(whole * tokens, rel=1e-5) == sum(loss * count for loss, count in parts)


def test_validating_more_often_changes_nothing_in_training(run):
    """
    In mlx-lm validation draws from the same random state as training.
    """
    from thunder_train.worker import checkpoint, loop, model

    digests = []
    for eval_every in (1, 3):
        one = run(dropout=0.3, steps=3, eval_every=eval_every)
        loop.train(one)
        digests.append(checkpoint.tensor_digest(model.adapter(one.model)))

    assert digests[0] == digests[1]


def test_flattening_a_gradient_can_be_undone(run):
    """
    All tensors travel between ranks as one message.
    """
    from mlx.utils import tree_flatten

    from thunder_train.worker import loop, model

    one = run()
    tree = one.model.trainable_parameters()
    again = dict(tree_flatten(loop.unflatten(loop.flatten(tree), model.trainable(one.model))))

    assert all((again[name] == leaf).all().item() for name, leaf in tree_flatten(tree))


def test_a_rank_without_a_row_sends_zeros(run):
    """
    The last batch of an epoch may be too short for all ranks, and a sum needs every one of them.
    """
    from thunder_train.worker import loop, model

    one = run()
    gradient, loss, tokens = loop.local_sums(one.model, [])

    assert (model.trainable_parameters(one.model), 0.0, 0.0, 0) == (
        gradient.size,
        gradient.abs().sum().item(),
        loss.item(),
        tokens,
    )


class Recorder:
    """An optimizer that keeps what it is given."""

    state = ()

    def update(self, model, gradients):
        """Keep the gradient."""
        from thunder_train.worker import loop

        self.gradient = loop.flatten(gradients)


def fifties(one):
    """A step in which every number of the gradient is 50, over 5 tokens."""
    import mlx.core as mx

    from thunder_train.worker import loop

    gradient = mx.ones(loop.local_sums(one.model, [])[0].size) * 50
    return loop.Totals(gradient, loss=1.0, tokens=5, finite=True, stop=False)


def test_a_long_gradient_is_clipped_to_the_limit(run):
    """
    One odd row must not throw the adapter away.
    """
    import mlx.core as mx

    from thunder_train.worker import loop

    one, recorder = run(), Recorder()

    assert loop.update(one.model, recorder, fifties(one), max_grad_norm=0.5)
    assert pytest.approx(0.5, rel=1e-4) == mx.linalg.norm(recorder.gradient).item()


def test_the_gradient_is_the_mean_over_all_target_tokens(run):
    """
    Sums cross ranks and are divided once, by the tokens of all ranks; 0 turns clipping off.
    """
    from thunder_train.worker import loop

    one, recorder = run(), Recorder()

    assert loop.update(one.model, recorder, fifties(one), max_grad_norm=0)
    assert {10.0} == set(recorder.gradient.tolist())


def test_a_validation_loss_that_is_not_finite_ends_the_run(run, monkeypatch):
    """
    NaN is no JSON, and no adapter with such a loss is worth saving.
    """
    import mlx.core as mx

    from thunder_train.worker import loop

    monkeypatch.setattr(loop, "loss_sum", lambda model, tokens, mask: mx.array(mx.nan))
    one = run()
    with pytest.raises(ThunderError) as caught:
        loop.evaluate(one.model, one.valid, 2, one.ranks)

    assert "validation: the loss is not finite; look for a broken model or adapter" == str(caught.value)


def test_a_step_that_is_not_finite_is_skipped_and_counted(run, tmp_path, monkeypatch, capsys):
    """
    One NaN would make every later weight a NaN; three runs of mlx-lm users were lost so.
    """
    import mlx.core as mx

    from thunder_train.worker import checkpoint, loop, model

    one = run(journal=tmp_path / "metrics.jsonl", steps=1)
    before = checkpoint.tensor_digest(model.adapter(one.model))
    monkeypatch.setattr(loop, "flatten", lambda tree: mx.zeros(model.trainable_parameters(one.model)) + mx.nan)
    outcome = loop.train(one)
    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]

    assert loop.Outcome(skipped=1, stopped=False) == outcome
    assert before == checkpoint.tensor_digest(model.adapter(one.model))
    assert ["skip", "valid", "save"] == [event["event"] for event in events]
    assert "step 1/1  skipped: the gradient is not finite" == capsys.readouterr().out.splitlines()[0]


def test_ten_skipped_steps_in_a_row_end_the_run(run, monkeypatch):
    """
    A run that only skips would look busy for a night.
    """
    import mlx.core as mx

    from thunder_train.worker import loop, model

    one = run(steps=30, eval_every=99)
    monkeypatch.setattr(loop, "flatten", lambda tree: mx.zeros(model.trainable_parameters(one.model)) + mx.nan)
    with pytest.raises(ThunderError) as caught:
        loop.train(one)

    expected = (
        "step 10: 10 steps in a row had a gradient that is not finite; "
        "lower the learning rate, or look for a broken base model"
    )
    assert expected == str(caught.value)


def test_a_rank_that_is_asked_to_stop_stops_all_after_the_step(run):
    """
    The wish travels with the gradient, so no rank waits for one that left.
    """
    from thunder_train.worker import loop

    assert loop.Outcome(skipped=0, stopped=True) == loop.train(run(steps=5), stop_asked=lambda: True)
