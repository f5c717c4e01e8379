"""Rows to tokens, and who takes which row."""

import pytest

from tests.worker.conftest import TEXTS, row, write_rows
from thunder_train import ThunderError

pytestmark = pytest.mark.mlx


def example(length, first=2, name="a"):
    from thunder_train.worker.batches import Example

    return Example(name, tuple(range(1, length + 1)), first)


def test_the_answer_and_its_end_of_turn_are_the_only_targets(tokenizer):
    """
    The prompt must not be learned, and the end must be, or the model never stops.
    """
    from thunder_train.worker import batches

    made = batches.example(row(1, "ߞߊ"), tokenizer, where="x:1")

    assert "ߞߊ<end_of_turn>" == tokenizer.decode(list(made.tokens[made.first_target :]))
    assert 3 == made.targets


def test_a_row_begins_once(tokenizer):
    """
    Rendering to text and encoding that would add a second <bos>.
    """
    from thunder_train.worker import batches

    tokens = batches.example(row(1, "ߞߊ"), tokenizer, where="x:1").tokens

    assert 1 == tokens.count(tokenizer.bos_token_id)
    assert tokenizer.bos_token_id == tokens[0]


def test_every_row_without_a_target_is_named(tmp_path, tokenizer):
    """
    A row that teaches nothing is a mistake in the data, not something to pass over.
    """
    from thunder_train.worker import batches

    empty, open_ended = row(1, "ߞߊ"), row(2, "ߞߊ")
    empty["messages"][-1]["content"] = ""
    open_ended["messages"].pop()
    path = write_rows(tmp_path / "rows.jsonl", [empty, row(3, "ߞߋ"), open_ended, {"text": "no chat"}])

    with pytest.raises(ThunderError) as caught:
        batches.read(path, tokenizer, 100, "refuse")

    expected = [
        f"{path}:1: has no target: the last message is no answer; end it with an answer",
        f"{path}:3: has no target: the last message is no answer; end it with an answer",
        f"{path}:4: has no `messages` with role and content; write ChatML rows",
    ]
    assert expected == str(caught.value).split("\n")


def test_rows_that_would_be_cut_are_refused_with_their_lengths(tmp_path, tokenizer):
    """
    Cutting from the right removes the answer: the first users trained on such rows without knowing.
    """
    from thunder_train.worker import batches

    path = write_rows(tmp_path / "rows.jsonl", [row(1, "ߞߊ"), row(2, "ߞߊ ߞߋ ߞߌ ߞߍ")])

    with pytest.raises(ThunderError) as caught:
        batches.read(path, tokenizer, 46, "refuse")

    expected = (
        f"{path}: the answers of 1 rows would be cut at 46 tokens: row-2 (56 tokens); "
        "set max_seq_len to 56, or too_long to drop"
    )
    assert expected == str(caught.value)


def test_rows_that_would_be_cut_can_be_dropped_and_are_counted(tmp_path, tokenizer):
    """
    Never trained on in part, never lost without a number.
    """
    from thunder_train.worker import batches

    path = write_rows(tmp_path / "rows.jsonl", [row(1, "ߞߊ"), row(2, "ߞߊ ߞߋ ߞߌ ߞߍ")])
    split = batches.read(path, tokenizer, 46, "drop")

    assert (["row-1"], 1) == ([each.row_id for each in split.examples], split.dropped)


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer):
    """
    If the prompt is no beginning of the row, nobody knows where the answer starts.
    """
    from thunder_train.worker import batches

    class Rewriting:
        has_chat_template = True
        bos_token_id = 2
        eos_token_ids = frozenset([5])

        def apply_chat_template(self, messages, add_generation_prompt):
            return [2, 7, 8] if add_generation_prompt else [2, 9, 8, 5]

    with pytest.raises(ThunderError, match="x:1: the prompt is no beginning of the whole row"):
        batches.example(row(1, "ߞߊ"), Rewriting(), where="x:1")


def test_padding_is_never_a_target():
    """
    Masked by position: token 0 is padding for Gemma and a real token for others.
    """
    from thunder_train.worker.batches import pad

    tokens, mask = pad([example(5, first=3), example(3, first=2)])

    assert [[1, 2, 3, 4, 5], [1, 2, 3, 0, 0]] == tokens.tolist()
    assert [[0, 0, 1, 1], [0, 1, 0, 0]] == mask.tolist()


def test_the_order_is_a_permutation_of_seed_and_epoch_alone():
    """
    A resumed run finds its place without carrying any state.
    """
    from thunder_train.worker.batches import order

    assert list(range(9)) == sorted(order(0, 0, 9))
    assert order(0, 0, 9) != order(0, 1, 9) != order(1, 1, 9)
    assert (5, 0, 3, 6, 4, 7, 2, 1) == order(0, 0, 8)


@pytest.mark.parametrize(("rows", "batch_size", "ranks"), [(8, 2, 2), (7, 2, 2), (5, 1, 3), (6, 1, 1)])
def test_ranks_share_each_epoch_without_overlap(rows, batch_size, ranks):
    """
    Together the ranks see every row exactly once per epoch, also when the last batch is short.
    """
    from thunder_train.worker.batches import shares

    steps = -(-rows // (batch_size * ranks))
    for epoch in (0, 1):
        seen = [
            index
            for step in range(epoch * steps, (epoch + 1) * steps)
            for rank in range(ranks)
            for index in shares(rows, step, 3, batch_size, rank, ranks)
        ]
        assert list(range(rows)) == sorted(seen)


def test_one_rank_with_two_rows_takes_what_two_ranks_with_one_take():
    """
    The number of machines changes who computes, not what is computed.
    """
    from thunder_train.worker.batches import shares

    for step in range(8):
        alone = shares(len(TEXTS), step, 0, 2, 0, 1)
        assert alone == shares(len(TEXTS), step, 0, 1, 0, 2) + shares(len(TEXTS), step, 0, 1, 1, 2)


def test_a_batch_larger_than_the_rows_is_refused(tmp_path):
    """
    Some ranks would never see a row, and the first loss would be a whole epoch's.
    """
    from thunder_train.worker.batches import check_batch

    with pytest.raises(ThunderError) as caught:
        check_batch(3, 2, 2, tmp_path / "train.jsonl")

    expected = "has 3 rows, fewer than the 2 x 2 ranks of one step; set batch_size to 1 or use fewer ranks"
    assert f"{tmp_path / 'train.jsonl'}: {expected}" == str(caught.value)
