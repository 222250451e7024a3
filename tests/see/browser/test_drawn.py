"""What the pages draw is where the model's own numbers say: colours of cells, points of curves, rows of tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from pellucid.finetune.classify import Classifier, encode_texts, predict
from pellucid.model.gpt import GPT
from pellucid.see.views.embeddings import PATTERN
from pellucid.text.tokenizer import Tokenizer

pytestmark = pytest.mark.browser
# The place of each pixel of a canvas: its opacity, and whether it is nearer to blue (above zero) than to orange.
PIXELS = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return { width: canvas.width, alpha: [...data].filter((_, i) => i % 4 === 3),
    blue: Array.from({ length: data.length / 4 }, (_, i) => data[4 * i + 2] > data[4 * i]) };
}"""
# Points of a line chart in the chart's own units, which two labels of each axis give; lines and dots apart.
POINTS = """(drawing) => {
  const labels = (anchor) => [...drawing.querySelectorAll(`text[text-anchor=${anchor}]`)]
    .filter((text) => /^[\\d.]+$/.test(text.textContent))
    .map((text) => [Number(text.textContent), Number(text.getAttribute("x")), Number(text.getAttribute("y"))]);
  const unit = (rows, place, by) => {
    const [[a, ...first], [b, ...second]] = rows.slice(1, 3);
    return (at) => a + ((at + by - first[place]) / (second[place] - first[place])) * (b - a);
  };
  const x = unit(labels("middle"), 0, 0), y = unit(labels("end"), 1, 4);
  const line = (path) => path.getAttribute("d").slice(1).split("L").map((pair) => pair.split(" ").map(Number))
    .map(([left, top]) => [x(left), y(top)]);
  const dot = (circle) => [x(Number(circle.getAttribute("cx"))), y(Number(circle.getAttribute("cy")))];
  return { lines: [...drawing.querySelectorAll("path[fill=none]")].map(line),
    dots: [...drawing.querySelectorAll("circle")].map(dot) };
}"""


class Judged:
    """The quickstart's classifier over its own test split, without the code that scores it."""

    def __init__(self, run: Path) -> None:
        lines = (run / "corpus" / "messages.jsonl").read_text(encoding="utf-8").splitlines()
        self.rows = [row for row in map(json.loads, lines) if row["split"] == "test"]
        model, tokenizer = Classifier.load(run / "classifier"), Tokenizer.load(run)
        ids = encode_texts([row["text"] for row in self.rows], tokenizer, model.gpt.config.context_length)
        self.spam = predict(model, ids, tokenizer.end_of_text)[:, model.labels.index("spam")]
        self.truth = np.array([row["label"] == "spam" for row in self.rows])
        self.least = model.rule.thresholds["spam"]


@pytest.fixture(scope="module")
def judged(run_folder: Path) -> Judged:
    return Judged(run_folder)


def test_the_patterns_of_positions_are_the_models_own(visit: Any, run_folder: Path) -> None:
    page = visit.open("embeddings", text="Ben", model=run_folder.name)
    table = GPT.load(run_folder).position_embedding.get_parameter("weight").detach()
    rows, columns = (torch.linspace(0, n - 1, min(n, PATTERN)).round().long() for n in table.shape)
    pattern = table[rows][:, columns]
    unit = table[rows] / table[rows].norm(dim=1, keepdim=True)
    for place, expected in enumerate((pattern / pattern.abs().max(), unit @ unit.T)):
        seen = page.locator("#patterns canvas").nth(place).evaluate(PIXELS)
        assert seen["width"] == expected.shape[1]
        alpha = torch.tensor(seen["alpha"]).view(expected.shape) / 255
        torch.testing.assert_close(alpha, expected.abs().clamp(max=1), atol=0.006, rtol=0)
        clear = expected.abs() > 0.2
        assert torch.equal(torch.tensor(seen["blue"]).view(expected.shape)[clear], expected[clear] > 0)


def test_precision_recall_and_confusion_follow_the_threshold(visit: Any, judged: Judged) -> None:
    page = visit.open("classifier", model="classifier")
    limits = set()
    for key in ("Home", "End", "PageDown"):
        page.locator("#cut").focus()
        page.keyboard.press(key)
        drawn = page.locator("#threshold svg").evaluate(POINTS)
        limit = float(page.locator("#threshold output").inner_text())
        limits.add(limit)
        # The page says thresholds in three decimals: the nearest of the model's own probabilities is meant.
        own = judged.spam[np.abs(judged.spam - limit).argmin()]
        rows = [np.abs(judged.spam - limit) < 5.1e-4]
        candidates = judged.spam[rows[0]] if rows[0].any() else np.array([own])
        expected = [score(judged, at) for at in np.unique(candidates)]
        assert any(np.allclose(drawn["dots"][0], one[:2], atol=2e-3) for one in expected)
        said = [float(text) for text in page.locator("#threshold .facts dd").all_inner_texts()]
        assert any(np.allclose(said[:3], [one[1], one[0], one[2]], atol=6e-4) for one in expected)
        assert said[3] == pytest.approx(average_precision_score(judged.truth, judged.spam), abs=6e-4)
        counts = [int(text.replace(",", "")) for text in page.locator("#confusion strong").all_inner_texts()]
        assert any(may_count(judged, at, counts) for at in candidates)
    assert len(limits) == 3
    curve = np.array(drawn["lines"][0])
    known = np.array([score(judged, at)[:2] for at in np.unique(judged.spam)])
    assert len(curve) > 3
    for point in curve:
        assert np.abs(known - point).max(axis=1).min() < 2e-3, f"{point} is no point of the curve"


def score(judged: Judged, at: float) -> tuple[float, float, float, list[int]]:
    """Recall, precision, F1 and the confusion matrix where spam is said from a probability of `at` on."""
    said = judged.spam >= at
    precision, recall, f1, _ = precision_recall_fscore_support(
        judged.truth, said, average="binary", pos_label=True, zero_division=0
    )
    truth = judged.truth
    counts = [(~truth & ~said).sum(), (~truth & said).sum(), (truth & ~said).sum(), (truth & said).sum()]
    return float(recall), float(precision), float(f1), [int(count) for count in counts]


def may_count(judged: Judged, at: float, counts: list[int]) -> bool:
    """Whether this is the confusion matrix from a probability of `at` on.

    A text's probability moves by its rounding with the texts it is read together with, so that others as probable as
    `at` may be on either side.
    """
    fewest, most = (score(judged, at + by)[3] for by in (1e-5, -1e-5))
    negative, positive = int((~judged.truth).sum()), int(judged.truth.sum())
    whole = counts[0] + counts[1] == negative and counts[2] + counts[3] == positive
    return whole and all(fewest[cell] <= counts[cell] <= most[cell] for cell in (1, 3))


def test_the_calibration_and_the_mistakes_are_those_of_the_model(visit: Any, judged: Judged) -> None:
    page = visit.open("classifier", model="classifier")
    sure = np.maximum(judged.spam, 1 - judged.spam)
    right = (judged.spam > 0.5) == judged.truth
    place = np.minimum((10 * sure).astype(int), 9)
    bins = [(sure[place == one].mean(), right[place == one].mean(), (place == one).sum()) for one in np.unique(place)]
    drawn = page.locator("#calibration svg").evaluate(POINTS)
    assert np.allclose(drawn["dots"], [one[:2] for one in bins], atol=3e-3)
    table = page.locator("#calibration tbody tr").all_inner_texts()
    assert [int(row.split("\t")[2].replace(",", "")) for row in table] == [int(one[2]) for one in bins]
    error = sum(abs(said - share) * count for said, share, count in bins) / len(sure)
    shown = [float(text) for text in page.locator("#calibration .facts dd").all_inner_texts()]
    assert shown[0] == pytest.approx(error, abs=6e-4)

    said = judged.spam >= judged.least
    wrong = {
        row["text"]: (answer, row["label"], float(p if answer else 1 - p))
        for row, answer, p in zip(judged.rows, said, judged.spam, strict=True)
        if answer != (row["label"] == "spam")
    }
    cards = page.locator("#mistakes .card")
    assert cards.count() == min(12, len(wrong))
    for card in cards.all():
        text, said_of_it = card.locator("p").all_inner_texts()
        answer, truth, probability = wrong[text]
        assert said_of_it.startswith(f"✗ {'spam' if answer else 'ham'} with {100 * probability:.1f}")
        assert said_of_it.endswith(f"in truth {truth}")
