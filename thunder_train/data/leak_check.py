"""The leak check: no prompt may hold the reference of its row, or a model learns to copy an answer that it never gets.

splits.py keeps rows apart that would leak between train, valid and test.
"""

from collections.abc import Iterable


def holds_reference(prompt: Iterable[str], reference: str, hypothesis: str) -> bool:
    """Whether a message of a prompt holds the reference, as whole words, anywhere but in the hypothesis."""
    reference = reference.strip()
    if not reference:
        return False
    # A hypothesis without an error equals the reference, so each copy of the hypothesis is cut out first.
    return any(reference in text and _has_words(text.replace(hypothesis or "\n", "\n"), reference) for text in prompt)


def _has_words(prompt: str, reference: str) -> bool:
    """Whether the reference stands in the prompt as whole words."""
    start = prompt.find(reference)
    while start >= 0:
        before, after = prompt[start - 1 : start] if start else "", prompt[start + len(reference) :][:1]
        if not _is_word(before) and not _is_word(after):
            return True
        start = prompt.find(reference, start + 1)
    return False


def _is_word(letter: str) -> bool:
    return letter.isalnum() or letter == "_"
