"""Linear models on words and characters: the baselines, and the teacher with the texts that it judges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from pellucid.config import FitConfig
from pellucid.finetune.classify import (
    Classification,
    Classifier,
    Lesson,
    Rule,
    encode_texts,
    softer,
    to_probabilities,
)
from pellucid.finetune.labelled import Labelled
from pellucid.finetune.linear import (
    MOST_MADE_UP,
    Teacher,
    can_teach,
    character_runs,
    lesson,
    made_up_count,
    rounds,
    surface,
    svm_answers,
    word_count_answers,
)
from pellucid.finetune.made_up import beginnings, made_up
from pellucid.model.gpt import GPT
from pellucid.text.tokenizer import Tokenizer

WIN = [Labelled(" ".join(["win a prize of", f"{i} pounds now,"[: 3 + i], f"call {i * i}"]), "spam") for i in range(24)]
SEE = [Labelled(f"see you at {i}, by the lamp in the garden"[: 12 + i], "ham") for i in range(40)]


def test_word_counts_tell_apart_what_words_tell_apart() -> None:
    train = [Labelled(f"win money {i}", "spam") for i in range(9)] + [Labelled(f"see you {i}", "ham") for i in range(9)]
    test = [Labelled("win win", "?"), Labelled("you", "?")]
    for answers in (word_count_answers, svm_answers):
        assert answers(train, test, ["ham", "spam"]).tolist() == [[False, True], [True, False]]


def test_simple_means_answer_with_several_labels_too() -> None:
    train = [Labelled(f"win money {i}", "a|b") for i in range(9)] + [Labelled(f"see you {i}", "") for i in range(9)]
    test = [Labelled("win win", ""), Labelled("you", "")]
    for answers in (word_count_answers, svm_answers):
        assert answers(train, test, ["a", "b"], several=True).tolist() == [[True, True], [False, False]]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_runs_of_characters_are_the_ones_of_scikit_learn(text: str) -> None:
    theirs = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5)).build_analyzer()
    assert sorted(character_runs(text)) == sorted(theirs(text))


def test_a_teacher_judges_texts_that_it_never_saw_and_admits_doubt() -> None:
    teacher = Teacher(WIN + SEE, ["ham", "spam"])
    assert teacher.learnt.shape == (64, 2)
    np.testing.assert_allclose(teacher.learnt.sum(axis=1), 1)
    assert (teacher.learnt.argmax(axis=1) == np.array([1] * 24 + [0] * 40)).all()
    prize, garden, neither = teacher.probabilities(["call now for a prize", "by the lamp", "zzz"])
    assert prize[1] > 0.5 > garden[1]
    assert abs(neither[1] - 0.5) < abs(prize[1] - 0.5) or neither[1] < prize[1]


def test_what_a_teacher_thinks_of_a_training_text_was_learnt_from_the_others() -> None:
    odd = Labelled("see you at 3 by the lamp in the garden today", "spam")  # a label that the text does not bear out
    teacher = Teacher([*WIN, odd, *SEE], ["ham", "spam"])
    assert teacher.learnt[24, 1] < 0.5


def test_a_teacher_knows_several_classes_and_several_labels() -> None:
    third = [Labelled(f"the train leaves at {i} from the station", "news") for i in range(20)]
    three = Teacher(WIN + SEE + third, ["ham", "news", "spam"])
    assert three.probabilities(["the train", "win a prize", "see you"]).argmax(axis=1).tolist() == [1, 2, 0]
    both = [Labelled(f"win a prize by the lamp {i}", "a|b") for i in range(20)]
    first = [Labelled(f"win a prize {i}", "a") for i in range(20)]
    none = [Labelled(f"see you {i}", "") for i in range(20)]
    several = Teacher(both + first + none, ["a", "b"], several=True)
    said = several.probabilities(["win a prize", "by the lamp win a prize", "see you"]) > 0.5
    assert said.tolist() == [[True, False], [True, True], [False, False]]


@pytest.mark.parametrize("few", [1, 15])
def test_there_is_no_teacher_where_a_label_is_rare(few: int) -> None:
    assert can_teach(WIN + SEE, ["ham", "spam"])
    assert not can_teach(WIN[:few] + SEE, ["ham", "spam"])
    on_all = [Labelled("win", "a|b"), Labelled("see", "a")] * 40
    assert not can_teach(on_all, ["a", "b"], several=True)


def test_texts_are_made_up_of_words_that_are_there_the_same_for_the_same_seed() -> None:
    texts = [example.text for example in WIN + SEE]
    made = made_up(texts, 300, seed=3)
    assert made == made_up(texts, 300, seed=3) != made_up(texts, 300, seed=4)
    assert len(made) == 300

    def shape(word: str) -> str:
        return "".join("0" if letter.isdigit() else letter for letter in word.lower())

    known = {shape(word) for text in texts for word in text.split(" ")}
    assert {shape(word) for text in made for word in text.split(" ")} <= known
    assert len(set(made)) > 200  # few are the same


def test_empty_texts_and_texts_of_spaces_can_be_part_of_one() -> None:
    assert len(made_up(["", "  ", "a"], 50, seed=0)) == 50


@given(st.integers(1, 10**6))
def test_made_up_texts_are_few_enough_to_be_judged(texts: int) -> None:
    assert 0 < made_up_count(texts) <= MOST_MADE_UP
    assert rounds(texts) >= 1


def test_a_lesson_is_met_beside_the_labels_and_softens_them(base_folder: Path) -> None:
    tokenizer = Tokenizer.load(base_folder)
    members = [Labelled("win", "b"), Labelled("fox", "a")]
    splits = dict.fromkeys(("train", "val", "test"), members)
    said = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    learnt, nothing = np.array([[0.5, 0.5], [1.0, 0.0]]), np.zeros((5, 1), dtype=np.int64)
    lesson_ = Lesson(learnt, ["lamp", "Ben", "fox fox fox"], said, nothing, np.zeros((5, 1, 2)), rounds=2)
    config = FitConfig(steps=1, batch_size=7)
    task = Classification(splits, ["a", "b"], tokenizer, config, 64, lesson=lesson_)
    (batch,) = task.batches(0)  # each of the three once, each of the two twice
    wanted = softer(np.array([[0.25, 0.75]] * 2 + [[1.0, 0.0]] * 2 + said.tolist()), several=False).tolist()
    np.testing.assert_allclose(sorted(batch.targets.tolist()), sorted(wanted), atol=1e-6)
    assert task.targets["train"].tolist() == [[0, 1], [1, 0]]  # what is scored stays as it was


def test_softer_probabilities_are_those_of_smaller_logits() -> None:
    logits = np.array([[1.0, -2.0, 0.5], [0.0, 4.0, 3.0]])
    for several in (False, True):
        soft = softer(to_probabilities(logits, several), several)
        np.testing.assert_allclose(soft, to_probabilities(logits / 3, several), atol=1e-9)
    assert np.isfinite(softer(np.array([[0.0, 1.0]]), several=True)).all()


def test_from_afar_a_text_is_its_length_digits_capitals_and_marks() -> None:
    assert surface(["WIN 0817!", ""]).tolist() == [[np.log(10), 4 / 10, 3 / 10, 1 / 10, 4], [0, 0, 0, 0, 0]]


def test_a_lesson_of_a_training_split_is_always_the_same() -> None:
    first, second = (lesson(WIN + SEE, ["ham", "spam"], False, seed=1) for _ in range(2))
    assert first.texts == second.texts and len(first.texts) == 3 * 64 and first.rounds == 2
    np.testing.assert_array_equal(first.cuts, second.cuts)
    np.testing.assert_array_equal(first.said, second.said)


def test_texts_are_cut_before_different_spaces() -> None:
    cuts = beginnings(["win a prize of lamps", "fox", "", "a b"], 3, seed=0)
    assert all(text[i] == " " for i in cuts[0] for text in ["win a prize of lamps"])
    assert len(set(cuts[0])) == 3
    assert cuts[1:].tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_a_beginning_is_judged_where_the_text_is_read_and_as_if_it_stood_alone(base_folder: Path) -> None:
    tokenizer, model = Tokenizer.load(base_folder), Classifier(GPT.load(base_folder), ["a", "b"])
    members = [Labelled("win a lamp", "b"), Labelled("fox", "a")]
    cuts = np.array([[5, 3], [0, 0], [3, 0]])
    early = np.array([[[0.3, 0.7], [0.9, 0.1]], [[0, 0], [0, 0]], [[0.4, 0.6], [0, 0]]])
    learnt, said = np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0.2, 0.8]])
    splits = dict.fromkeys(("train", "val", "test"), members)
    for several in (False, True):
        lesson_ = Lesson(learnt, ["Ben or the fox"], said, cuts, early)
        rule = Rule(several=several)
        task = Classification(splits, ["a", "b"], tokenizer, FitConfig(steps=1, batch_size=3), 64, rule, lesson=lesson_)
        (batch,) = task.batches(0)
        pairs = [("win a lamp", [0.25, 0.75]), ("fox", [1.0, 0.0]), ("Ben or the fox", said[0])]
        pairs += [("win a", early[0, 0]), ("win", early[0, 1]), ("Ben", early[2, 0])]
        expected = 0.0
        for text, wanted in pairs:
            ids = torch.tensor(encode_texts([text], tokenizer, 64))
            (logits,) = model(ids, torch.tensor([ids.shape[1]]))
            aim = torch.from_numpy(softer(np.array([wanted]), several))[0]
            likelihoods = aim * logits.log_softmax(0)
            if several:
                likelihoods = aim * F.logsigmoid(logits) + (1 - aim) * F.logsigmoid(-logits)
            expected -= likelihoods.sum().item()
        loss = task.loss(model, batch)
        assert loss.total.item() == pytest.approx(expected, rel=1e-5)
        assert loss.count == 3
