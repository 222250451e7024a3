"""Probabilities that can be believed, and from which one on a class is said: both chosen on the val split.

Pages: Guo et al. 2017, "On Calibration of Modern Neural Networks" (temperature scaling, expected calibration error);
Platt 1999, "Probabilistic Outputs for Support Vector Machines" (targets that are not quite sure, section 2.2);
Lipton et al. 2014, "Thresholding Classifiers to Maximize F1 Score" (of calibrated probabilities, and its noise).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pellucid.finetune.classify import Array, Rule, log_loss

# N texts, C classes


def best_temperature(logits: Array, targets: Array, several: bool = False) -> float:
    """The number to divide logits (N, C) by for the lowest loss, between 1/20 and 20.

    What N texts say is taken for no surer than that: the next one may be another with 1 in N + 2 (Laplace). Otherwise a
    model that makes no mistake on val would be told that it never makes one, and be sure of all that it says.
    """
    texts, classes = targets.shape
    targets = (targets * texts + (1 if several else 2 / classes)) / (texts + 2)
    low, high = np.log(0.05), np.log(20)
    inner = (np.sqrt(5) - 1) / 2  # the loss has one valley over log T: a golden section search finds its bottom
    while high - low > 1e-4:
        left, right = high - inner * (high - low), low + inner * (high - low)
        if log_loss(logits / np.exp(left), targets, several) < log_loss(logits / np.exp(right), targets, several):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def best_threshold(probabilities: Array, truth: Array) -> float:
    """The threshold on (N,) probabilities with the highest F1 of (N,) truths, 0 to 1; of equals the one nearest to 0.5.

    It stands in the middle between two probabilities, so that a text at the edge is not decided by rounding.
    """
    values = np.unique(probabilities)
    candidates = np.unique(np.concatenate([[0.5, values[0] / 2], (values[1:] + values[:-1]) / 2]))
    order = np.argsort(probabilities)
    found = np.concatenate([np.cumsum(truth[order][::-1])[::-1], [0]])  # true ones from each place on
    places = np.searchsorted(probabilities[order], candidates)
    said, hits = len(truth) - places, found[places]
    f1 = 2 * hits / np.maximum(said + truth.sum(), 1)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(candidates[best[np.argmin(np.abs(candidates[best] - 0.5))]])


def thresholds(
    probabilities: Array, targets: Array, labels: Sequence[str], rule: Rule, positive: str | None
) -> dict[str, float]:
    """Thresholds of the labels that are said by one: all with several labels, the positive class of two, else none.

    A text counts half as what it is, and half as what the calibrated model takes it for: else one odd text among few
    moves the threshold anywhere (docs/performance.md).
    """
    judged = labels if rule.several else [label for label in labels if label == positive]
    believed = (targets + probabilities) / 2
    places = {label: list(labels).index(label) for label in judged}
    return {label: best_threshold(probabilities[:, i], believed[:, i]) for label, i in places.items()}


def calibration(confidence: Array, right: Array, bins: int = 10) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error, and for each tenth of confidence the mean said, the share right, and how many."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = []
    for number in range(bins):
        here = place == number
        if here.any():
            said, true = float(confidence[here].mean()), float(right[here].mean())
            rows.append({"said": said, "right": true, "texts": int(here.sum())})
    error = sum(row["texts"] * abs(row["said"] - row["right"]) for row in rows) / max(len(confidence), 1)
    return float(error), rows
