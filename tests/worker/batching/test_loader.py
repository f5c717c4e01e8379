"""Which rows a rank takes at a step, and how they are laid out."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.families import build
from tests.worker.conftest import rows_in

pytestmark = pytest.mark.mlx


def lognormal(rows: int, seed: int = 0) -> list[int]:
    """Lengths as real rows have them, in tokens."""
    random_ = random.Random(seed)  # noqa: S311  (rows, not secrecy)
    return [max(4, int(random_.lognormvariate(4, 0.7))) for _ in range(rows)]


def costs(**changed: Any) -> Any:
    """Costs of a small machine, some values changed."""
    from thunder_train.worker.batching.plan import Costs

    return Costs(**({"micro_tokens": 1024, "knee": 320.0, "overhead": 100.0, "is_packed": True} | changed))


def loader(
    lengths: Sequence[int],
    global_batch_size: int,
    rank: int = 0,
    world: int = 1,
    seed: int = 0,
    weights: tuple[float, ...] = (),
) -> Any:
    """A data loader of rows of these lengths."""
    from thunder_train.worker.batching.examples import Example
    from thunder_train.worker.batching.loader import DataLoader

    examples = [Example(str(i), (1 + i,) * length, ((1, length),)) for i, length in enumerate(lengths)]
    return DataLoader(examples, global_batch_size, seed, rank, world, costs(), weights)


def ids(batches: Sequence[Any]) -> list[int]:
    """The rows of batches: their tokens are their numbers, from 1."""
    return [tokens[0] - 1 for one in batches for tokens in rows_in(one)]


def padding(lengths: Sequence[int], passes: Sequence[Any]) -> float:
    """The share of padding among the computed tokens."""
    return 1 - sum(length - 1 for length in lengths) / sum(len(one.sequences) * one.width for one in passes)


def test_the_order_is_a_permutation_of_seed_and_epoch_alone() -> None:
    """
    A resumed run needs no state of the data.
    """
    from thunder_train.worker.batching.loader import order

    assert list(range(9)) == sorted(order(0, 0, 9))
    assert order(0, 0, 9) != order(0, 1, 9) != order(1, 1, 9)
    assert (5, 0, 3, 6, 4, 7, 2, 1) == tuple(order(0, 0, 8))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_step_takes_the_same_rows_whatever_the_world_size(world: int) -> None:
    """
    The number of machines decides who computes a row, not which rows a step has: each once per epoch, the last step
    may be short.
    """
    from thunder_train.worker.batching.loader import order

    lengths = lognormal(21)
    loaders = [loader(lengths, 8, rank, world) for rank in range(world)]

    assert {3} == {one.steps_per_epoch for one in loaders}
    for step in range(6):
        epoch, start = step // 3, step % 3 * 8
        taken = [row for one in loaders for row in ids(one.step(step))]
        assert sorted(order(0, epoch, 21)[start : start + 8]) == sorted(taken)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_validation_takes_every_row_once(world: int) -> None:
    """
    The same rows every time, however many ranks share them and however many there are.
    """
    lengths = lognormal(600)
    taken = [ids(loader(lengths, 8, rank, world).validation()) for rank in range(world)]

    assert list(range(600)) == sorted(row for rows in taken for row in rows)
    assert taken[0] == ids(loader(lengths, 8, 0, world).validation())


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_get_nearly_equal_work(ranks: int) -> None:
    """
    The slowest rank sets the pace; equal numbers of rows, or of tokens, would leave the others waiting.
    """
    from thunder_train.worker.batching.plan import cost_of, deal, plan

    waited = []
    for seed in range(20):
        lengths = lognormal(8 * ranks, seed)
        work = [cost_of(plan([lengths[i] for i in rows], costs()), costs()) for rows in deal(lengths, ranks, costs())]
        waited.append(max(work) * ranks / sum(work))

    assert sum(waited) / 20 < 1.05


@pytest.mark.parametrize("weights", [(3.0, 1.0), (1.0, 2.0, 1.0), (0.5, 2.0)])
def test_a_faster_rank_gets_more_work_and_all_are_done_together(weights: tuple[float, ...]) -> None:
    """
    Machines differ in speed, and the slowest rank holds up all: so work divided by weight, the time, is made equal.
    """
    from thunder_train.worker.batching.plan import cost_of, deal, plan

    total, waited = [0.0] * len(weights), []
    for seed in range(20):
        lengths = lognormal(16 * len(weights), seed)
        dealt = deal(lengths, len(weights), costs(), weights)
        work = [cost_of(plan([lengths[i] for i in rows], costs()), costs()) for rows in dealt]
        total = [before + more for before, more in zip(total, work, strict=True)]
        slowest = max(each / weight for each, weight in zip(work, weights, strict=True))
        waited.append(slowest * sum(weights) / sum(work))

    expected = [weight / sum(weights) for weight in weights]
    assert expected == pytest.approx([each / sum(total) for each in total], abs=0.02)
    assert sum(waited) / 20 < 1.05


def test_many_rows_are_dealt_by_weight_at_once() -> None:
    """
    So many rows are dealt evenly without exchanges, which would cost time at every step.
    """
    from thunder_train.worker.batching.plan import REFINED, deal

    lengths = lognormal(2 * REFINED)
    fast, slow = (sum(lengths[row] for row in rows) for rows in deal(lengths, 2, costs(), (3.0, 1.0)))

    assert pytest.approx(0.75, abs=0.01) == fast / (fast + slow)


def test_weights_that_are_alike_change_nothing() -> None:
    """
    Only ratios of weights count, and equal weights are the same as none.
    """
    from thunder_train.worker.batching.plan import deal

    assert deal(lognormal(40), 3, costs()) == deal(lognormal(40), 3, costs(), (7.0, 7.0, 7.0))


def test_a_weighted_step_takes_the_same_rows() -> None:
    """
    Weights decide who computes a row: steps and validation hold each row once.
    """
    lengths = lognormal(21)
    even = [loader(lengths, 8, rank, 2) for rank in range(2)]
    uneven = [loader(lengths, 8, rank, 2, weights=(3.0, 1.0)) for rank in range(2)]

    for step in range(6):
        expected = sorted(row for one in even for row in ids(one.step(step)))
        assert expected == sorted(row for one in uneven for row in ids(one.step(step)))
    validated = [ids(one.validation()) for one in uneven]
    assert list(range(21)) == sorted(row for rows in validated for row in rows)
    assert 0.7 < sum(lengths[row] for row in validated[0]) / sum(lengths) < 0.8


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(2, 900), max_size=40),
    weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=5),
    is_even=st.booleans(),
)
def test_every_row_is_dealt_once_and_alike_everywhere(lengths: list[int], weights: list[float], is_even: bool) -> None:
    """
    Each rank deals for itself: if two ranks disagreed, a row would be trained twice or never.
    """
    from thunder_train.worker.batching.plan import deal

    chosen = () if is_even else tuple(weights)
    dealt = deal(lengths, len(weights), costs(), chosen)

    assert list(range(len(lengths))) == sorted(row for rows in dealt for row in rows)
    assert dealt == deal(lengths, len(weights), costs(), chosen)


def test_a_rank_may_get_no_row() -> None:
    """
    The last step of an epoch can have fewer rows than there are ranks; the rank still takes part.
    """
    assert [1, 1, 0] == [len(ids(loader([9, 9, 9, 9, 9], 3, rank, 3).step(1))) for rank in range(3)]


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(2, 400), min_size=1, max_size=40),
    micro_tokens=st.integers(1, 1500),
    is_packed=st.booleans(),
    is_fixed=st.booleans(),
)
def test_every_layout_holds_each_row_once_within_its_limits(
    lengths: list[int], micro_tokens: int, is_packed: bool, is_fixed: bool
) -> None:
    """
    Nothing is lost, nothing overflows, memory stays bounded; a row longer than the bound goes alone.
    """
    from thunder_train.worker.batching.plan import fixed_widths, plan

    widths = fixed_widths(max(lengths) - 1, micro_tokens) if is_fixed else ()
    passes = plan(lengths, costs(micro_tokens=micro_tokens, is_packed=is_packed, widths=widths))

    rows = [row for one in passes for sequence in one.sequences for row in sequence]
    assert list(range(len(lengths))) == sorted(rows)
    for one in passes:
        assert all(sum(lengths[i] for i in sequence) - 1 <= one.width for sequence in one.sequences)
        assert len(one.sequences) == 1 or len(one.sequences) * one.width <= micro_tokens
        assert is_packed or not one.is_packed
        assert not widths or (one.width in widths and len(one.sequences) in (1, 2, 4, 8, 16, 32))


def test_packing_keeps_padding_under_a_tenth() -> None:
    """
    mlx-lm pads more than half of such rows: packing gives most of the speed.
    """
    from thunder_train.worker.batching.plan import fixed_widths, plan

    for seed in range(5):
        lengths = lognormal(32, seed)
        fixed = costs(micro_tokens=4096, overhead=1000, widths=fixed_widths(max(lengths) - 1, 4096))
        for chosen in (costs(), costs(overhead=1000), fixed):
            assert padding(lengths, plan(lengths, chosen)) < 0.1


def test_fixed_widths_are_few_multiples_of_64() -> None:
    """
    A GPU compiles a step once per shape: about two seconds each.
    """
    from thunder_train.worker.batching.plan import fixed_widths

    assert (128, 256, 384, 512, 1024, 2048, 4096) == fixed_widths(500, 4096)
    assert (64, 128, 256, 512) == fixed_widths(20, 512)
    assert (256, 512, 768, 1024) == fixed_widths(1000, 600)


def test_rows_of_one_length_are_neither_padded_nor_packed() -> None:
    """
    Packing gains nothing here, so the layout is that of a plain batch.
    """
    from thunder_train.worker.batching.plan import Pass, plan

    assert [Pass(tuple((i,) for i in range(8)), 99)] == plan([100] * 8, costs())


def test_the_machine_and_the_model_decide_what_is_cheap() -> None:
    """
    On a CPU any width is allowed; attention costs relatively less in a wide model; other models are padded.
    """
    from thunder_train.worker.batching.loader import costs_of

    llama, wide = costs_of(build("llama"), [8], 512), costs_of(build("qwen2"), [8], 512)

    assert (512, 4.6 * 64, True, ()) == (llama.micro_tokens, llama.knee, llama.is_packed, llama.widths)
    assert 2 * llama.knee == wide.knee
    assert llama == costs_of(build("llama", bits=4), [8], 512)


def test_a_row_goes_where_it_was_if_the_balance_allows() -> None:
    """
    The rank that keeps a part of a row has less to compute. All in one place would leave the others idle.
    """
    from thunder_train.worker.batching.plan import Homes, deal

    lengths = [20] * 8
    half = Homes([0, 1, 0, 1, 0, 1, 0, 1], 0.5)
    assert [{0, 2, 4, 6}, {1, 3, 5, 7}] == [set(share) for share in deal(lengths, 2, costs(), homes=half)]
    crowded = Homes([0] * 8, 0.5)
    assert 5 == len(deal(lengths, 2, costs(), homes=crowded)[0])


@pytest.mark.parametrize("start", [0, 9])
def test_shares_of_later_epochs_do_not_depend_on_where_a_training_began(start: int) -> None:
    """
    A resumed rank keeps nothing yet, and must take the rows that it would have taken.
    """
    from dataclasses import replace

    whole = [replace(loader(lognormal(23), 4, rank, 2), kept=0.6) for rank in (0, 1)]
    rows = {(rank, step): ids(whole[rank].step(step)) for rank in (0, 1) for step in range(12)}
    resumed = [replace(loader(lognormal(23), 4, rank, 2), kept=0.6) for rank in (0, 1)]

    for rank, step in rows:
        if step >= start:
            assert rows[rank, step] == ids(resumed[rank].step(step))
    for step in range(12):
        both = [*rows[0, step], *rows[1, step]]
        assert sorted(both) == sorted(whole[0].rows(step))
