"""The sentences of the nano base and of its data set."""

import random

from examples.nko_nano import lexicon


def sentences(count: int, for_base: bool) -> set[str]:
    draw = random.Random(7)  # noqa: S311
    return {lexicon.sentence(draw, for_base) for _ in range(count)}


def test_words_are_spelled_with_the_bridges_vowels():
    """
    The users' bridge writes o, e, ɔ and ɛ with other letters than standard N'Ko; the data set declares bridge-toneless.
    """
    assert "ߞߋ ߦߍ ߖߏߣ ߓߐ" == lexicon.nko("ko ye jɔn bɛ")


def test_sentences_are_made_of_the_lexicons_words():
    """
    The recogniser of nano_rows never turns a word into another of the lexicon, which holds only if the list is whole.
    """
    used = {word for text in sentences(3000, True) for word in text.split(" ")}

    assert set() == used - set(lexicon.words())


def test_the_base_never_sees_a_sentence_of_the_data_set():
    """
    A base that had read the held-out sentences would recite them, and the recipe's improvement would prove nothing.
    """
    seen, kept_back = sentences(3000, True), sentences(500, False)

    assert set() == set(map(lexicon.normal, seen)) & set(map(lexicon.normal, kept_back))
    assert not any(map(lexicon.is_for_base, kept_back))


def test_spaces_do_not_make_another_sentence():
    """
    A recogniser that runs two words together must not carry a sentence over to the other side.
    """
    assert all(lexicon.is_for_base(text.replace(" ", "")) for text in sentences(200, True))


def test_sentences_are_short():
    """
    The base has learnt to copy texts of a known length, and no longer ones.
    """
    lengths = {len(text) for text in sentences(2000, True)}

    assert (lexicon.SHORTEST, lexicon.LONGEST) == (min(lengths), max(lengths))
