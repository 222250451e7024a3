"""How good a classifier is, and how good counting words would have been on the same split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support
from sklearn.pipeline import make_pipeline

from pellucid.finetune.labelled import Labelled


def positive_label(labels: Sequence[str]) -> str:
    """With two classes, the one that is looked for: `spam` or the like by name, else the rarer one."""
    for name in ("spam", "1", "true", "yes", "positive", "toxic"):
        for label in set(labels):
            if label.lower() == name:
                return label
    return min(Counter(labels).items(), key=lambda item: (item[1], item[0]))[0]


def classification_scores(truth: Sequence[str], answers: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Accuracy, precision, recall, F1 (of the positive class, or the mean over more than two), confusion matrix."""
    binary = len(labels) == 2
    positive = positive_label(truth) if binary else None
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth,
        answers,
        labels=list(labels) if not binary else None,
        pos_label=positive if binary else 1,
        average="binary" if binary else "macro",
        zero_division=0.0,
    )
    return {
        "accuracy": float(accuracy_score(truth, answers)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "positive": positive,
        "labels": list(labels),
        "confusion": confusion_matrix(truth, answers, labels=list(labels)).tolist(),
        "texts": len(truth),
    }


def word_count_answers(train: Sequence[Labelled], test: Sequence[Labelled]) -> list[str]:
    """What logistic regression on word counts answers for the test split."""
    model = make_pipeline(CountVectorizer(token_pattern=r"\S+"), LogisticRegression(max_iter=2000))
    model.fit([example.text for example in train], [example.label for example in train])
    return [str(label) for label in model.predict([example.text for example in test])]
