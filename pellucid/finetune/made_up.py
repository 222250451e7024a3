"""Texts made up of the training texts, for a teacher to judge: parts of one, parts of two behind each other, words of
three in any order, some of them with other digits, other letter case, or words lost.

A part shows what the rest of a text is worth without it, which no label says. All of it is a function of the seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ONE, TWO = 0.4, 0.5  # shares of parts of one text, and of parts of two; the rest are words in any order
CHANGED = 0.5


def made_up(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` texts out of `texts`."""
    generator = np.random.default_rng([seed, len(texts)])
    words = [text[:20_000].split(" ") for text in texts]
    return [_one(words, generator) for _ in range(count)]


def _one(texts: Sequence[list[str]], generator: np.random.Generator) -> str:
    kind = generator.random()
    if kind < ONE:
        words = part(_any(texts, generator), generator)
    elif kind < ONE + TWO:
        words = part(_any(texts, generator), generator) + part(_any(texts, generator), generator)
    else:
        words = [word for _ in range(3) for word in _any(texts, generator)]
        generator.shuffle(words)
        words = words[: generator.integers(3, 30)]
    return " ".join(changed(words, generator) if generator.random() < CHANGED else words)


def _any(texts: Sequence[list[str]], generator: np.random.Generator) -> list[str]:
    return texts[int(generator.integers(len(texts)))]


def part(words: list[str], generator: np.random.Generator) -> list[str]:
    """From a fifth of the words to all of them, as they stand."""
    count = max(1, int(len(words) * generator.uniform(0.2, 1)))
    first = int(generator.integers(len(words) - count + 1))
    return words[first : first + count]


def changed(words: list[str], generator: np.random.Generator) -> list[str]:
    """Half of the digits are others; a tenth in lower case, a quarter in upper case; a tenth of the words is lost."""
    kept = [word for word in words if generator.random() >= 0.1] or words
    kept = [_other_digits(word, generator) for word in kept]
    case = generator.random()
    if case < 0.35:
        kept = [word.lower() if case < 0.1 else word.upper() for word in kept]
    return kept


def _other_digits(word: str, generator: np.random.Generator) -> str:
    if not any(letter in "0123456789" for letter in word):
        return word
    return "".join(
        str(generator.integers(10)) if letter in "0123456789" and generator.random() < 0.5 else letter
        for letter in word
    )


def beginnings(texts: Sequence[str], count: int, seed: int) -> NDArray[np.int64]:
    """(N, `count`) places before a space at which texts can be cut, none twice; 0 where a text has not so many."""
    generator = np.random.default_rng([seed, len(texts), count])
    cuts = np.zeros((len(texts), count), dtype=np.int64)
    for row, text in zip(cuts, texts, strict=True):
        places = [i for i, letter in enumerate(text[:20_000]) if letter == " " and i > 0]
        chosen = generator.permutation(np.array(places, dtype=np.int64))[:count]
        row[: len(chosen)] = chosen
    return cuts
