"""Scores by hand on small cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from pellucid.finetune import scores as scores_module
from pellucid.finetune.classify import one_hot
from pellucid.finetune.scores import positive_label


def classification_scores(
    truth: list[str], said: list[str], labels: list[str], positive: str | None = None
) -> dict[str, Any]:
    rows = [one_hot(np.array([labels.index(name) for name in names]), len(labels)) for names in (truth, said)]
    return scores_module.classification_scores(rows[0], rows[1], labels, positive)


def test_two_classes_are_scored_by_the_one_that_is_looked_for() -> None:
    truth = ["spam", "spam", "spam", "ham", "ham", "ham", "ham", "ham"]
    said = ["spam", "spam", "ham", "ham", "ham", "ham", "ham", "spam"]
    scores = classification_scores(truth, said, ["ham", "spam"], "spam")
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
    scores = classification_scores(["spam", "ham"], ["ham", "ham"], ["ham", "spam"], "spam")
    assert (scores["precision"], scores["recall"], scores["f1"]) == (0.0, 0.0, 0.0)


def test_the_positive_class_is_found_by_name_or_is_the_rarer_one() -> None:
    assert positive_label(["ham", "Spam", "Spam"]) == "Spam"
    assert positive_label(["0", "1", "1"]) == "1"
    assert positive_label(["x", "y", "y"]) == "x"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=5, max_size=60))
def test_every_score_is_the_one_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    labels = list("abcd")
    truth, said = (np.array(column) for column in zip(*pairs, strict=True))
    ours = classification_scores([labels[i] for i in truth], [labels[i] for i in said], labels)
    theirs = precision_recall_fscore_support(truth, said, labels=range(4), zero_division=0.0)
    mean = precision_recall_fscore_support(truth, said, average="macro", zero_division=0.0)
    for name, values, macro in zip(("precision", "recall", "f1"), theirs, mean, strict=False):
        assert [ours["by_class"][label][name] for label in labels] == pytest.approx(list(values))
        assert ours[f"macro_{name}"] == pytest.approx(macro)
    assert ours["accuracy"] == pytest.approx((truth == said).mean())
    assert ours["confusion"] == confusion_matrix(truth, said, labels=range(4)).tolist()


def test_the_interval_of_an_accuracy_is_the_one_of_the_binomial() -> None:
    truth = ["a"] * 200 + ["b"] * 200
    said = ["a"] * 180 + ["b"] * 220
    low, high = classification_scores(truth, said, ["a", "b"])["intervals"]["accuracy"]
    expected = binom.ppf([0.025, 0.975], 400, 0.95) / 400
    assert (low, high) == pytest.approx(tuple(expected), abs=0.004)


def test_every_score_of_a_class_has_its_interval_from_the_same_resamples() -> None:
    truth, said = ["a"] * 60 + ["b"] * 40 + ["c"] * 20, ["a"] * 50 + ["b"] * 50 + ["c"] * 20
    scores = classification_scores(truth, said, ["a", "b", "c"], "b")
    for name in ("precision", "recall", "f1"):
        for label in "abc":
            row = scores["by_class"][label]
            low, high = row[f"{name}_interval"]
            assert 0 <= low <= row[name] <= high <= 1
        assert scores["by_class"]["b"][f"{name}_interval"] == scores["intervals"][name]
        assert scores["by_class"]["c"][f"{name}_interval"] == [1, 1]


def test_a_class_of_few_texts_has_its_interval_from_the_resamples_that_hold_one() -> None:
    names = ["a"] * 60 + ["b"] * 2
    scores = classification_scores(names, names, ["a", "b", "c"])  # all right; no text is of c
    assert scores["macro_f1"] == 1 and scores["intervals"]["macro_f1"] == [1, 1]
    assert scores["by_class"]["b"]["f1_interval"] == [1, 1]
    assert scores["by_class"]["c"]["f1_interval"] == []
    assert classification_scores(names, names, ["a", "b"], "b")["intervals"]["recall"] == [1, 1]


def test_a_curve_and_a_calibration_say_what_the_probabilities_hold() -> None:
    generator = np.random.default_rng(0)
    chance = generator.uniform(size=2000)
    spam = generator.uniform(size=2000) < chance
    truth, honest = np.stack([~spam, spam], axis=1), np.stack([1 - chance, chance], axis=1)
    scores = scores_module.probability_scores(honest, truth, ["ham", "spam"], "spam", resamples=20)
    assert scores["calibration_error"] < 0.03
    boastful = np.stack([1 - chance.round(), chance.round()], axis=1)
    assert scores_module.probability_scores(boastful, truth, ["ham", "spam"], "spam", 20)["calibration_error"] > 0.2
    curve = scores["curves"]["spam"]
    assert curve["interval"][0] < curve["average_precision"] < curve["interval"][1]
    assert curve["points"][0][0] == 1.0 and curve["points"][-1][0] < 0.01  # recall from all to (nearly) none
