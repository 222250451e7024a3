"""Linear models on counts of words and characters: what a classifier stands beside, and what it learns from.

With few labels they are strong, because every word and every run of characters is looked at by itself; a transformer
from scratch has to find out first that this is worth while (docs/performance.md). So the linear machine also teaches:
it says what it thinks of texts that nobody has labelled, made up of the training texts (`made_up.py`).
Page: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from pellucid.finetune.classify import Array, Lesson, one_hot, target_rows
from pellucid.finetune.labelled import Labelled
from pellucid.finetune.made_up import beginnings, made_up

# N texts, C classes

LONGEST = 20_000  # characters of a text that count
FOLDS = 4
MOST_MADE_UP = 10_000
BEGINNINGS = 3  # of each text
FEWEST = 4 * FOLDS  # texts of the rarest label, or nothing can be said of texts that the machine was not trained on


def word_count_answers(
    train: Sequence[Labelled], test: Sequence[Labelled], labels: Sequence[str], several: bool = False
) -> Array:
    """What logistic regression on word counts says of the test split, (N, C) booleans."""
    vectors, model = CountVectorizer(token_pattern=r"\S+"), LogisticRegression(max_iter=2000)
    return _simple_answers(make_pipeline(vectors, OneVsRestClassifier(model)), train, test, labels, several)


def svm_answers(
    train: Sequence[Labelled], test: Sequence[Labelled], labels: Sequence[str], several: bool = False
) -> Array:
    """What a linear support vector machine on TF-IDF of words and of runs of 2 to 5 characters says."""
    return _simple_answers(make_pipeline(words_and_characters(), machine()), train, test, labels, several)


def _simple_answers(
    pipeline: Any, train: Sequence[Labelled], test: Sequence[Labelled], labels: Sequence[str], several: bool
) -> Array:
    """Learn from one split and answer for the other; of a very long text the first 20,000 characters count."""
    learnt, asked = ([example.text[:LONGEST] for example in split] for split in (train, test))
    wanted = target_rows(train, labels, several)
    pipeline.fit(learnt, wanted.astype(int) if several else wanted.argmax(axis=1))
    answers = np.asarray(pipeline.predict(asked))
    said: Array = answers > 0 if several else one_hot(answers, len(labels))
    return said


def words_and_characters() -> Any:
    """TF-IDF of words, pairs of words, and the runs of 2 to 5 characters inside words."""
    words = TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer=character_runs, sublinear_tf=True, max_features=300_000)
    return make_union(words, characters)


def character_runs(text: str) -> list[str]:
    """Runs of 2 to 5 characters of each word with a space on both sides, as scikit-learn's `char_wb`, kept by word."""
    return [run for word in text.lower().split() for run in _runs_of_word(word)]


@lru_cache(maxsize=100_000)
def _runs_of_word(word: str) -> tuple[str, ...]:
    padded = f" {word} "
    lengths = (n for n in range(2, 6) if n == 2 or n <= len(padded))
    return tuple(padded[i : i + n] for n in lengths for i in range(len(padded) - n + 1))


def machine() -> Any:
    """The linear support vector machine, one for each class."""
    return OneVsRestClassifier(LinearSVC(C=1.0, random_state=0))


class Teacher:
    """The machine on words and characters of the training split, with probabilities that can be believed.

    Its margins and what a text looks like from afar (`surface`) are turned into probabilities by logistic regression
    over the training texts, each judged by a machine that was trained without it (a fold of four left out); `learnt`
    (N, C) are those of the training texts themselves.
    """

    def __init__(self, train: Sequence[Labelled], labels: Sequence[str], several: bool = False) -> None:
        wanted = target_rows(train, labels, several).astype(int)
        truth = wanted if several else wanted.argmax(axis=1)
        self.vectors = words_and_characters()
        texts = [example.text[:LONGEST] for example in train]
        features = self.vectors.fit_transform(texts)
        folds = (KFold if several else StratifiedKFold)(FOLDS, shuffle=True, random_state=0)
        parts = list(folds.split(features, None if several else truth))
        held = [margins(machine().fit(features[rest], truth[rest]), features[here]) for rest, here in parts]
        unseen = np.zeros((len(train), held[0].shape[1]))
        for (_, here), values in zip(parts, held, strict=True):
            unseen[here] = values
        self.machine = machine().fit(features, truth)
        regression = LogisticRegression(C=1.0, max_iter=2000)
        self.sureness = make_pipeline(StandardScaler(), OneVsRestClassifier(regression) if several else regression)
        looks = surface(texts)
        self.known = looks.min(axis=0), looks.max(axis=0)
        self.sureness.fit(np.hstack([unseen, looks]), truth)
        self.learnt: Array = self.sureness.predict_proba(np.hstack([unseen, looks]))

    def probabilities(self, texts: Sequence[str]) -> Array:
        """(N, C) probabilities of texts."""
        texts = [text[:LONGEST] for text in texts]
        apart = margins(self.machine, self.vectors.transform(texts))
        looks = surface(texts).clip(*self.known)  # nothing is known of shorter or longer ones
        found: Array = self.sureness.predict_proba(np.hstack([apart, looks]))
        return found


def surface(texts: Sequence[str]) -> Array:
    """(N, 5): log length, shares of digits, of capitals and of marks, and the longest row of digits."""
    rows = []
    for text in texts:
        digits, capitals = sum(map(str.isdigit, text)), sum(map(str.isupper, text))
        marks = sum(not (letter.isalnum() or letter.isspace()) for letter in text)
        longest = max(map(len, re.findall(r"\d+", text)), default=0)
        size = len(text) + 1
        rows.append([np.log(size), digits / size, capitals / size, marks / size, min(longest, 20)])
    return np.array(rows)


def margins(fitted: Any, features: Any) -> Array:
    """(N, C) distances from the planes between a class and the rest; (N, 1) where two classes share a plane."""
    return np.asarray(fitted.decision_function(features)).reshape(features.shape[0], -1)


def can_teach(train: Sequence[Labelled], labels: Sequence[str], several: bool = False) -> bool:
    """Whether each label is on enough texts, and missing on enough, for folds that all have both."""
    counts = target_rows(train, labels, several).sum(axis=0)
    return bool(counts.min() >= FEWEST and counts.max() <= len(train) - FEWEST)


def made_up_count(texts: int) -> int:
    """How many texts are made up of so many: three of each, but no more than a teacher judges in a few seconds."""
    return min(3 * texts, MOST_MADE_UP)


def lesson(train: Sequence[Labelled], labels: Sequence[str], several: bool, seed: int) -> Lesson:
    """What the machine thinks of the training texts, of texts made up of them, and of beginnings of all."""
    teacher = Teacher(train, labels, several)
    own = [example.text for example in train]
    texts = made_up(own, made_up_count(len(own)), seed)
    cuts = beginnings([*own, *texts], BEGINNINGS, seed)
    early = np.zeros((*cuts.shape, len(labels)))
    places = np.nonzero(cuts)
    if len(places[0]):
        every = [*own, *texts]
        early[places] = teacher.probabilities([every[i][: cuts[i, p]] for i, p in zip(*places, strict=True)])
    return Lesson(teacher.learnt, texts, teacher.probabilities(texts), cuts, early, rounds(len(own)))


def rounds(texts: int) -> int:
    """How often each of so many training texts is met while each made-up one is met once: two of those for three."""
    return max(1, round(made_up_count(texts) / (1.5 * texts)))
