"""The messages: word order decides, word counts don't, and no test message is a training message in disguise."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from itertools import islice

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.naive_bayes import MultinomialNB

from pellucid.text.tinyworld import Message, messages
from pellucid.text.tinyworld.spam_shapes import MIRRORED


@cache
def drawn(seed: int = 1, count: int = 8000) -> list[Message]:
    return list(islice(messages(seed), count))


def test_same_seed_gives_the_same_messages() -> None:
    assert drawn()[:100] == list(islice(messages(1), 100))
    assert drawn()[:100] != list(islice(messages(2), 100))


def test_both_labels_are_common_and_lengths_are_those_of_text_messages() -> None:
    assert 0.4 < sum(message.label == "spam" for message in drawn()) / len(drawn()) < 0.6
    assert all(4 <= len(message.text.split()) <= 25 for message in drawn())
    assert len({message.text for message in drawn()}) > 0.99 * len(drawn())


@pytest.mark.parametrize(("spam", "ham"), MIRRORED)
def test_a_mirrored_pair_has_the_same_words_in_another_order(spam: str, ham: str) -> None:
    assert Counter(re.findall(r"\w+", spam)) == Counter(re.findall(r"\w+", ham))
    assert spam != ham


def test_no_test_message_is_nearly_a_training_message() -> None:
    def plain(message: Message) -> str:
        return re.sub(r"\d", "", message.text.lower())

    everything = [*drawn(1), *drawn(2)]
    known = {plain(message) for message in everything if message.split == "train"}
    held_out = [message for message in everything if message.split != "train"]
    assert len(held_out) > 1000
    assert not [message for message in held_out if plain(message) in known]


@pytest.mark.parametrize("classifier", [LogisticRegression(max_iter=500), MultinomialNB()])
def test_word_counts_do_not_tell_spam(classifier: LogisticRegression | MultinomialNB) -> None:
    train = [message for message in drawn() if message.split == "train"][:4000]
    test = [message for message in [*drawn(1), *drawn(2)] if message.split == "test"][:1000]
    vectors = CountVectorizer()
    classifier.fit(vectors.fit_transform([m.text for m in train]), [m.label for m in train])
    told = classifier.predict(vectors.transform([m.text for m in test]))
    assert 0.75 < f1_score([m.label for m in test], told, pos_label="spam") < 0.95
