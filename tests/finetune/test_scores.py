"""Scores by hand on small cases, and the word-count baseline."""

from __future__ import annotations

import pytest

from pellucid.finetune.labelled import Labelled
from pellucid.finetune.scores import classification_scores, positive_label, word_count_answers


def test_two_classes_are_scored_by_the_one_that_is_looked_for() -> None:
    truth = ["spam", "spam", "spam", "ham", "ham", "ham", "ham", "ham"]
    said = ["spam", "spam", "ham", "ham", "ham", "ham", "ham", "spam"]
    scores = classification_scores(truth, said, ["ham", "spam"])
    assert scores["accuracy"] == 6 / 8
    assert scores["precision"] == pytest.approx(2 / 3)
    assert scores["recall"] == pytest.approx(2 / 3)
    assert scores["f1"] == pytest.approx(2 / 3)
    assert scores["confusion"] == [[4, 1], [1, 2]]  # rows are the truth, in the order of the labels
    assert (scores["positive"], scores["texts"]) == ("spam", 8)


def test_more_classes_are_scored_by_the_mean_over_them() -> None:
    truth, said = ["a", "a", "b", "c"], ["a", "b", "b", "b"]
    scores = classification_scores(truth, said, ["a", "b", "c"])
    assert scores["precision"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert scores["recall"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert scores["f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert scores["positive"] is None


def test_a_class_that_is_never_said_scores_0_and_is_no_error() -> None:
    scores = classification_scores(["spam", "ham"], ["ham", "ham"], ["ham", "spam"])
    assert (scores["precision"], scores["recall"], scores["f1"]) == (0.0, 0.0, 0.0)


def test_the_positive_class_is_found_by_name_or_is_the_rarer_one() -> None:
    assert positive_label(["ham", "Spam", "Spam"]) == "Spam"
    assert positive_label(["0", "1", "1"]) == "1"
    assert positive_label(["x", "y", "y"]) == "x"


def test_word_counts_tell_apart_what_words_tell_apart() -> None:
    train = [Labelled(f"win money {i}", "spam") for i in range(9)] + [Labelled(f"see you {i}", "ham") for i in range(9)]
    assert word_count_answers(train, [Labelled("win win", "?"), Labelled("you", "?")]) == ["spam", "ham"]
