"""Near duplicates: equal and nearly equal texts are found, others are not; estimates agree with true Jaccard."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pellucid.text.leaks import MINIMA, NearIndex, signatures

WORDS = [f"word{number}" for number in range(5000)]


def five_words(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def jaccard(a: str, b: str) -> float:
    one, other = five_words(a), five_words(b)
    return len(one & other) / len(one | other)


def pairs(count: int, changes: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of 30 to 300 words, each with a copy in which up to `changes` words differ."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        words = chance.choices(WORDS, k=chance.randint(30, 300))
        other = list(words)
        for _ in range(chance.randint(1, changes)):
            other[chance.randrange(len(other))] = "another"
        found.append((" ".join(words), " ".join(other)))
    return found


def is_near(a: str, b: str) -> bool:
    return bool(NearIndex([signatures([a])]).near(signatures([b]))[0])


def test_equal_texts_have_equal_signatures_whatever_is_beside_them() -> None:
    texts = ["one two three four five six", "seven", "", "one two three four five six"]
    rows = signatures(texts)
    assert rows.shape == (4, MINIMA)
    assert (rows[0] == rows[3]).all()
    for text, row in zip(texts, rows, strict=True):
        assert (signatures([text])[0] == row).all()


def test_estimates_agree_with_the_true_share_of_common_five_words() -> None:
    errors = []
    for a, b in pairs(500, changes=8):
        one, other = signatures([a, b])
        errors.append(float((one == other).mean()) - jaccard(a, b))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.045  # the square root of 0.25 / 128


@pytest.mark.parametrize("first", [0x4E00, 0x3041, 0x0E01, 0x1F600], ids=["Chinese", "Japanese", "Thai", "emoji"])
def test_near_texts_are_found_in_scripts_without_spaces(first: int) -> None:
    chance = random.Random(first)
    text, other = ("".join(chr(first + chance.randrange(40)) for _ in range(200)) for _ in range(2))
    near = text[:90] + chr(first + 41) + text[91:]
    assert is_near(text, near) and not is_near(text, other)
    shared = len(
        set(zip(*(text[i:] for i in range(5)), strict=False)) & set(zip(*(near[i:] for i in range(5)), strict=False))
    )
    one, two = signatures([text, near])
    assert abs(float((one == two).mean()) - shared / (2 * 196 - shared)) < 0.15


def test_near_texts_are_found_and_far_ones_never() -> None:
    found: dict[str, list[bool]] = {"near": [], "far": []}
    for a, b in pairs(1500, changes=12):
        if (alike := jaccard(a, b)) >= 0.85:
            found["near"].append(is_near(a, b))
        elif alike <= 0.5:
            found["far"].append(is_near(a, b))
    assert min(len(found["near"]), len(found["far"])) > 250
    assert np.mean(found["near"]) > 0.98
    assert not any(found["far"])


def test_one_is_found_among_many_with_its_number_and_its_score() -> None:
    chance = random.Random(1)
    texts = [" ".join(chance.choices(WORDS, k=80)) for _ in range(3000)]
    index = NearIndex([signatures(texts[:1000]), signatures([]), signatures(texts[1000:])])
    assert len(index) == 3000
    which, score = index.nearest(signatures([texts[7], texts[2999] + " more", " ".join(reversed(texts[5].split()))]))
    assert which[:2].tolist() == [7, 2999]
    assert score[0] == 1
    assert 0.85 < score[1] < 1
    assert score[2] < 0.2


def test_an_empty_index_finds_nothing_and_nothing_asked_finds_nothing() -> None:
    assert NearIndex([]).near(signatures(["some text", ""])).tolist() == [False, False]
    assert NearIndex([]).nearest(signatures(["some text"]))[0].tolist() == [-1]
    assert NearIndex([signatures(["some text"])]).near(signatures([])).tolist() == []


def test_texts_without_words_are_near_to_nothing() -> None:
    assert not is_near("", "")
    assert not is_near(" \n\t", "")
    assert not is_near("", "a")


@pytest.mark.parametrize("text", ["yes", "a b", "a b c d", "a b c d e", "日本語 です", "🙂"])
def test_a_short_text_is_near_only_to_the_same_words(text: str) -> None:
    assert is_near(text, text)
    assert not is_near(text, text + " more")
    assert not is_near(text, "other")
    assert not is_near(text, "")


def test_white_space_and_capitals_make_no_difference_but_the_order_of_words_does() -> None:
    assert is_near("The quick brown fox jumps over it", "  the QUICK\nbrown\t\tfox jumps\r\nover it ")
    assert not is_near("the quick brown fox", "fox brown quick the")
    assert not is_near("ab c", "a bc")
