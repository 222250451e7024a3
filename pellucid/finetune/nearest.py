"""The nearest-example baseline of instructions. By itself, so that only who needs it waits for scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

from sklearn.feature_extraction.text import TfidfVectorizer

from pellucid.finetune.instructions import Example


def nearest_answers(train: Sequence[Example], test: Sequence[Example]) -> list[str]:
    """For each test question the answer of the most alike training question (TF-IDF of words, cosine)."""
    vectorizer = TfidfVectorizer(token_pattern=r"\S+")
    known = vectorizer.fit_transform([f"{example.instruction} {example.input}" for example in train])
    asked = vectorizer.transform([f"{example.instruction} {example.input}" for example in test])
    answers = []
    for first in range(0, len(test), 256):  # in slices: the product of all with all would not fit in memory
        nearest = (asked[first : first + 256] @ known.T).toarray().argmax(axis=1)
        answers += [train[index].output for index in nearest]
    return answers
