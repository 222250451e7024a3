"""How good a classifier is, each number with its interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve

from pellucid.finetune.calibration import calibration
from pellucid.finetune.classify import Array

# N texts, C classes, R resamples

RESAMPLES = 1000
MOST_POINTS = 200  # of a precision-recall curve


def positive_label(labels: Sequence[str]) -> str:
    """With two classes, the one that is looked for: `spam` or the like by name, else the rarer one."""
    for name in ("spam", "1", "true", "yes", "positive", "toxic"):
        for label in set(labels):
            if label.lower() == name:
                return label
    return min(Counter(labels).items(), key=lambda item: (item[1], item[0]))[0]


def classification_scores(
    truth: Array, said: Array, labels: Sequence[str], positive: str | None, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Accuracy (all labels of a text right), precision, recall and F1 of (N, C) booleans against (N, C) true ones.

    The headline is of the positive class, or else the mean over all classes. `intervals` holds the 95 % of a bootstrap
    over texts; with one label a text `confusion` has a row for each true class.
    """
    place = None if positive is None else list(labels).index(positive)
    once = _rates(np.ones((1, len(truth))), truth, said, place)
    spread = bootstrap(truth, said, place, resamples) if resamples else {}

    def of_class(name: str, i: int) -> list[float]:
        return interval(spread[f"{name}_by_class"][spread["there"][:, i], i]) if spread else []

    result: dict[str, Any] = {name: float(once[name][0]) for name in HEADLINE}
    result["intervals"] = {name: interval(spread[name]) for name in HEADLINE} if spread else {}
    if spread and place is not None:
        result["intervals"] |= {name: of_class(name, place) for name in BY_CLASS}
    result["by_class"] = {
        label: {
            **{name: float(once[f"{name}_by_class"][0, i]) for name in BY_CLASS},
            **{f"{name}_interval": of_class(name, i) for name in BY_CLASS},
            "texts": int(truth[:, i].sum()),
        }
        for i, label in enumerate(labels)
    }
    alone = bool((truth.sum(axis=1) == 1).all() and (said.sum(axis=1) == 1).all())
    confusion = (truth.T.astype(int) @ said.astype(int)).tolist() if alone else []
    return {**result, "positive": positive, "labels": list(labels), "confusion": confusion, "texts": len(truth)}


BY_CLASS = ("precision", "recall", "f1")
HEADLINE = ("accuracy", "precision", "recall", "f1", "macro_precision", "macro_recall", "macro_f1")


def _rates(weights: Array, truth: Array, said: Array, place: int | None) -> dict[str, Array]:
    """Each score (R,) when text n counts weights[r, n] times; by class (R, C), and which classes are `there`.

    A class that no text has and that is never said has no score, and is no part of a mean (as in scikit-learn).
    """
    hits, false, missed = (weights @ part for part in (truth & said, ~truth & said, truth & ~said))  # (R, C)
    by_class = {
        "precision": hits / np.maximum(hits + false, 1),
        "recall": hits / np.maximum(hits + missed, 1),
        "f1": 2 * hits / np.maximum(2 * hits + false + missed, 1),
    }
    there = hits + false + missed > 0
    result = {"accuracy": weights @ (truth == said).all(axis=1) / weights.sum(axis=1), "there": there}
    for name, values in by_class.items():
        macro = values.sum(axis=1) / np.maximum(there.sum(axis=1), 1)
        result |= {f"{name}_by_class": values, f"macro_{name}": macro}
        result[name] = macro if place is None else values[:, place]
    return result


def bootstrap(truth: Array, said: Array, place: int | None, resamples: int = RESAMPLES) -> dict[str, Array]:
    """The scores of as many resamples of the texts, always the same ones."""
    generator, parts = np.random.default_rng(0), []
    at_once = max(1, 10_000_000 // max(1, len(truth)))
    for first in range(0, resamples, at_once):
        count = min(at_once, resamples - first)
        weights = generator.multinomial(len(truth), np.full(len(truth), 1 / len(truth)), size=count)
        parts.append(_rates(weights.astype(float), truth, said, place))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def interval(values: Array) -> list[float]:
    """Where the middle 95 % of some numbers lie; empty where there are none."""
    return [float(edge) for edge in np.quantile(values, [0.025, 0.975])] if len(values) else []


def probability_scores(
    probabilities: Array, truth: Array, labels: Sequence[str], positive: str | None, resamples: int = 200
) -> dict[str, Any]:
    """Calibration of the likeliest class, and the precision-recall curve of the positive class (or of each)."""
    best = probabilities.argmax(axis=1)
    confidence, right = probabilities.max(axis=1), truth[np.arange(len(truth)), best]
    error, bins = calibration(confidence, right)
    generator = np.random.default_rng(0)
    draws = [generator.integers(0, len(truth), len(truth)) for _ in range(resamples)]
    errors = np.array([calibration(confidence[draw], right[draw])[0] for draw in draws])
    curves = {}
    for label in [positive] if positive is not None else list(labels)[:20]:
        place = list(labels).index(label)
        if not truth[:, place].any():
            continue
        precision, recall, at = precision_recall_curve(truth[:, place], probabilities[:, place])
        few = np.unique(np.linspace(0, len(at) - 1, min(MOST_POINTS, len(at))).round().astype(int))
        usable = [draw for draw in draws if truth[draw, place].any()]
        means = np.array([average_precision_score(truth[d, place], probabilities[d, place]) for d in usable])
        curves[label] = {
            "average_precision": float(average_precision_score(truth[:, place], probabilities[:, place])),
            "interval": interval(means),
            "points": [[float(recall[i]), float(precision[i]), float(at[i])] for i in few],
        }
    return {"calibration_error": error, "calibration_interval": interval(errors), "bins": bins, "curves": curves}
