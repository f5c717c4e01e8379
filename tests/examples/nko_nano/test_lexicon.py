"""The grammar: its vocabulary, and which sentences the base may see."""

import random

from examples.nko_nano import lexicon


def sentences(count: int, for_base: bool) -> set[str]:
    rng = random.Random(7)  # noqa: S311
    return {lexicon.sentence(rng, for_base) for _ in range(count)}


def test_words_are_spelled_with_the_vowels_of_bridge_toneless() -> None:
    """
    The bridge-toneless orthography, which the data set declares, writes o, e, ɔ and ɛ with other letters than standard
    N'Ko.
    """
    assert "ߞߋ ߦߍ ߖߏߣ ߓߐ" == lexicon.nko("ko ye jɔn bɛ")


def test_sentences_contain_only_words_of_the_lexicon() -> None:
    """
    rows.add_errors never turns a word into another word of the lexicon, which works only if the list is complete.
    """
    used = {word for text in sentences(3000, True) for word in text.split(" ")}

    assert set() == used - set(lexicon.words())


def test_the_base_never_sees_a_sentence_of_the_data_set() -> None:
    """
    A base that had seen the held-out sentences could recite them, and the recipe's improvement would prove nothing.
    """
    seen, held_out = sentences(3000, True), sentences(500, False)

    assert set() == set(map(lexicon.normal, seen)) & set(map(lexicon.normal, held_out))
    assert not any(map(lexicon.is_for_base, held_out))


def test_spaces_do_not_make_another_sentence() -> None:
    """
    An error that joins two words must not move a sentence to the other side.
    """
    assert all(lexicon.is_for_base(text.replace(" ", "")) for text in sentences(200, True))


def test_sentences_are_short() -> None:
    """
    The base has learnt to copy texts up to a certain length, and cannot copy longer ones.
    """
    lengths = {len(text) for text in sentences(2000, True)}

    assert (lexicon.SHORTEST, lexicon.LONGEST) == (min(lengths), max(lengths))
