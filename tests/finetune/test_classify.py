"""A classifier: the same answer whatever stands behind a text or beside it, and the one that transformers gives."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

from pellucid.config import FitConfig
from pellucid.finetune.calibration import best_temperature, best_threshold, thresholds
from pellucid.finetune.classify import (
    EVALUATED,
    Classification,
    Classifier,
    Rule,
    cut_row,
    decide,
    encode_texts,
    open_classifier,
    predict,
    some_of_each,
    to_probabilities,
)
from pellucid.finetune.labelled import Labelled
from pellucid.finetune.padded import LengthGroupedSampler, pad
from pellucid.model.gpt import GPT
from pellucid.runtime import DataError
from pellucid.see.shelf import read_run
from pellucid.text.tokenizer import Tokenizer

LABELS = ("bad", "good", "so-so")


@pytest.fixture(scope="module")
def tokenizer(base_folder: Path) -> Tokenizer:
    return Tokenizer.load(base_folder)


@pytest.fixture(scope="module")
def classifier(base_folder: Path) -> Classifier:
    torch.manual_seed(1)
    return Classifier(GPT.load(base_folder), LABELS).eval()


@pytest.fixture(scope="module")
def folder(classifier: Classifier, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("classifier")
    classifier.save(made, tokenizer)
    return made


rows_of_ids = st.lists(st.lists(st.integers(0, 250), min_size=1, max_size=20), min_size=1, max_size=6)


@torch.no_grad()
@settings(max_examples=30, deadline=None)
@given(rows_of_ids, st.integers(0, 30), st.integers(0, 250))
def test_neither_padding_nor_neighbours_change_a_logit(
    classifier: Classifier, rows: list[list[int]], more: int, fill: int
) -> None:
    ids, lengths = pad(rows, fill)
    ids = torch.cat([ids, torch.full((len(rows), more), fill)], dim=1)
    together = classifier(ids, lengths)
    for row, logits in zip(rows, together, strict=True):
        alone = classifier(torch.tensor([row]), torch.tensor([len(row)]))[0]
        torch.testing.assert_close(logits, alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_transformers_gives_the_same_logits_also_for_a_padded_batch(
    classifier: Classifier, tokenizer: Tokenizer, folder: Path
) -> None:
    theirs, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert tuple(theirs.config.id2label[i] for i in range(3)) == LABELS
    rows = encode_texts(["The red lamp", "", "Ben", "Where is the fox? Where is the blue fox?"], tokenizer, 64)
    ids, lengths = pad(rows, tokenizer.end_of_text)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    expected = theirs.eval()(ids, attention_mask=mask).logits
    torch.testing.assert_close(classifier(ids, lengths), expected, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_a_classifier_saved_and_loaded_is_the_same(classifier: Classifier, folder: Path) -> None:
    again = Classifier.load(folder)
    assert again.labels == LABELS
    ids = torch.randint(0, 250, (2, 9))
    assert torch.equal(again(ids, torch.tensor([9, 4])), classifier(ids, torch.tensor([9, 4])))


@torch.no_grad()
@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifier_of_transformers_is_read_though_its_labels_have_no_names(tmp_path: Path, classes: int) -> None:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2, num_labels=classes, pad_token_id=0
    )
    theirs = GPT2ForSequenceClassification(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = Classifier.load(tmp_path)
    assert ours.labels == tuple(f"LABEL_{i}" for i in range(classes))
    ids = torch.randint(1, 40, (2, 7))
    torch.testing.assert_close(ours(ids, torch.tensor([7, 7])), theirs(ids).logits, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("outputs", "kind"), [(1, None), (1, "regression"), (2, "regression")])
def test_a_model_that_gives_numbers_is_no_classifier(tmp_path: Path, outputs: int, kind: str | None) -> None:
    config = GPT2Config(
        vocab_size=40, n_positions=16, n_embd=16, n_layer=1, n_head=2, num_labels=outputs, problem_type=kind
    )
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="gives a number, no label"):
        Classifier.load(tmp_path)


def test_a_language_model_is_no_classifier_and_a_classifier_shows_its_language_model(
    base_folder: Path, folder: Path, classifier: Classifier
) -> None:
    with pytest.raises(DataError, match=r"without a classifier's head.*finetune classify"):
        Classifier.load(base_folder)
    assert torch.equal(GPT.load(folder).token_embedding.weight, classifier.gpt.token_embedding.weight)


def test_labels_that_do_not_fit_the_head_are_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    settings_ = json.loads((tmp_path / "config.json").read_text())
    del settings_["id2label"]["2"]
    (tmp_path / "config.json").write_text(json.dumps(settings_))
    with pytest.raises(DataError, match="2 labels for a head of 3 classes"):
        Classifier.load(tmp_path)


def test_a_classifier_and_a_tokenizer_that_do_not_belong_together_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "odd")
    larger = Tokenizer.load(folder)
    larger.add_special_tokens([f"<|{number}|>" for number in range(9)])
    larger.save(tmp_path / "odd")
    with pytest.raises(DataError, match="tokens; expected at most"):
        open_classifier(tmp_path / "odd")


def test_probabilities_come_in_the_order_of_the_texts(classifier: Classifier, tokenizer: Tokenizer) -> None:
    texts = ["The fox", "Ben has none of the blue lamps", "a", "Where is the fox?"] * 5
    rows = encode_texts(texts, tokenizer, 64)
    heard: list[int] = []
    together = predict(classifier, rows, tokenizer.end_of_text, batch_size=3, told=heard.append)
    assert heard == [3] * 6 + [2]
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)
    for row, expected in zip(rows, together, strict=True):
        np.testing.assert_allclose(predict(classifier, [row], 0)[0], expected, atol=1e-5)


def test_a_long_text_is_cut_to_the_context_and_an_empty_one_is_its_end(tokenizer: Tokenizer) -> None:
    long, empty = encode_texts(["fox " * 500, ""], tokenizer, 64)
    assert len(long) == 64
    assert empty == [tokenizer.end_of_text]


def test_the_loss_counts_texts_and_its_batches_repeat(base_folder: Path, tokenizer: Tokenizer) -> None:
    splits = {name: [Labelled(f"lamp {i}", "ab"[i % 2]) for i in range(20)] for name in ("train", "val", "test")}
    task = Classification(splits, ["a", "b"], tokenizer, FitConfig(steps=1, batch_size=4), 64)
    model = Classifier(GPT.load(base_folder), ["a", "b"])
    (batch,) = task.batches(3)
    (again,) = task.batches(3)
    assert torch.equal(batch.ids, again.ids)
    loss = task.loss(model, batch)
    log = model(batch.ids, batch.lengths).log_softmax(-1)
    torch.testing.assert_close(loss.total, -(log * batch.targets).sum())
    assert loss.count == 4
    scores = task.evaluate(model)
    assert 0 <= scores["accuracy"] <= 1 and scores["loss"] > 0


@pytest.mark.parametrize("order", ["one class behind the other", "in turn", "by chance"])
def test_of_a_val_split_of_thousands_some_of_each_class_are_looked_at(
    base_folder: Path, tokenizer: Tokenizer, order: str
) -> None:
    train = [Labelled("lamp", "a"), Labelled("fox", "b")]
    val = [Labelled("lamp", "a"), Labelled("fox", "b")] * 512
    if order == "one class behind the other":
        val.sort(key=lambda example: example.label)
    elif order == "by chance":
        random.Random(1).shuffle(val)
    model, config = Classifier(GPT.load(base_folder), ["a", "b"]), FitConfig(steps=1, batch_size=4)
    with torch.no_grad():
        model.head.weight.copy_(torch.randn(model.head.weight.shape, generator=torch.Generator().manual_seed(1)))
    read: list[int] = []
    model.register_forward_pre_hook(lambda _, arguments: read.append(len(arguments[0])))

    def scores(val: list[Labelled]) -> dict[str, float]:
        splits = {"train": train, "val": val, "test": train}
        return Classification(splits, ["a", "b"], tokenizer, config, 64).evaluate(model)

    assert scores(val) == pytest.approx(scores(train))
    assert sum(read) == EVALUATED + 2


@given(st.lists(st.integers(1, 300), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_each_class_has_its_share_among_those_that_are_looked_at(counts: list[int], chance: random.Random) -> None:
    rows = [number for number, count in enumerate(counts) for _ in range(count)]
    chance.shuffle(rows)
    targets = np.eye(len(counts), dtype=np.float32)[rows]
    chosen = some_of_each(targets, 50)
    assert len(chosen) == len(set(chosen.tolist())) == min(50, len(rows)) and (np.diff(chosen) > 0).all()
    for found, count in zip(targets[chosen].sum(axis=0), counts, strict=True):
        assert abs(found - count * len(chosen) / len(rows)) < 1


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 9))
def test_the_sampler_shows_each_example_once_an_epoch(count: int, batch_size: int, seed: int) -> None:
    lengths = [(7 * i) % 11 for i in range(count)]
    sampler = LengthGroupedSampler(lengths, batch_size, seed)
    epochs = sampler.group * batch_size  # so many epochs are a whole number of groups
    drawn = [i for step in range(epochs * count // batch_size) for i in sampler.indices(step)]
    assert sorted(drawn) == sorted(list(range(count)) * epochs)
    assert sampler.indices(5) == LengthGroupedSampler(lengths, batch_size, seed).indices(5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 9))
def test_no_example_stands_in_a_batch_more_often_than_it_must(count: int, batch_size: int, seed: int) -> None:
    sampler = LengthGroupedSampler([5] * count, batch_size, seed)
    for step in range(20):
        chosen = sampler.indices(step)
        assert max(chosen.count(i) for i in chosen) <= -(-batch_size // count) + 1


def test_padding_is_on_the_right_and_lengths_are_true() -> None:
    ids, lengths = pad([[1, 2, 3], [4]], 9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert lengths.tolist() == [3, 1]


def test_a_long_text_is_cut_where_it_is_asked(tokenizer: Tokenizer) -> None:
    assert cut_row([1, 2, 3, 4, 5], 3, "end") == [1, 2, 3]
    assert cut_row([1, 2, 3, 4, 5], 3, "start") == [3, 4, 5]
    assert cut_row([1, 2, 3, 4, 5], 3, "middle") == [1, 2, 5]
    assert cut_row([1, 2, 3], 3, "middle") == [1, 2, 3]


def test_that_a_text_is_cut_is_said_where_it_is_classified(call: Any, folder: Path) -> None:
    done = call("classify", folder, "fox " * 99, "fox", "--json")
    assert "1 of 2 texts are longer than the context of 64 tokens; their end is cut." in done.stderr
    assert call("classify", folder, "fox " * 30).stderr == ""


def test_a_tokenizer_that_does_not_fit_the_classifier_is_refused(call: Any, folder: Path, tmp_path: Path) -> None:
    larger = shutil.copytree(folder, tmp_path / "larger")
    tokenizer = Tokenizer.load(folder)
    tokenizer.add_special_tokens(["<|more|>"])
    tokenizer.save(larger)
    done = call("classify", larger, "fox")
    assert done.returncode == 2
    assert "larger: found a tokenizer of" in done.stderr
    for load in (open_classifier, read_run):
        with pytest.raises(DataError, match="expected at most"):
            load(larger)


def test_a_text_of_a_megabyte_is_classified(classifier: Classifier, tokenizer: Tokenizer) -> None:
    rows = encode_texts(["fox lamp " * 110_000], tokenizer, 64)
    assert predict(classifier, rows, 0).shape == (1, 3)


def test_rare_classes_weigh_more_or_are_drawn_more_often(tokenizer: Tokenizer) -> None:
    members = [Labelled(f"lamp {i}", "b" if i % 10 == 0 else "a") for i in range(100)]
    splits = dict.fromkeys(("train", "val", "test"), members)
    config = FitConfig(steps=1, batch_size=4)
    balanced = Classification(splits, ["a", "b"], tokenizer, config, 64, class_weight="balanced")
    assert balanced.weights.tolist() == pytest.approx([100 / 180, 5.0])
    sampled = Classification(splits, ["a", "b"], tokenizer, config, 64, class_weight="sampler")
    drawn = sampled.targets["train"][sampled.chosen].sum(axis=0)
    assert drawn[0] == 90 and abs(drawn[1] - 90) <= 1


def test_balanced_those_with_a_label_weigh_as_much_as_those_without(tokenizer: Tokenizer) -> None:
    members = [Labelled(f"lamp {i}", ("a|c", "b|c", *["c"] * 8)[i % 10]) for i in range(100)]
    splits, config = dict.fromkeys(("train", "val", "test"), members), FitConfig(steps=1, batch_size=4)
    task = Classification(splits, list("abc"), tokenizer, config, 64, Rule(several=True), class_weight="balanced")
    assert task.weights.tolist() == pytest.approx([9.0, 9.0, 0.01])


def test_several_labels_are_learnt_each_by_itself(base_folder: Path, tokenizer: Tokenizer) -> None:
    members = [Labelled("win a lamp", "a|b"), Labelled("fox", ""), Labelled("Ben", "b")]
    rule = Rule(several=True)
    task = Classification(dict.fromkeys(("train", "val", "test"), members), ["a", "b"], tokenizer,
                          FitConfig(steps=1, batch_size=3), 64, rule)  # fmt: skip
    model = Classifier(GPT.load(base_folder), ["a", "b"], rule)
    (batch,) = task.batches(0)
    chances = torch.sigmoid(model(batch.ids, batch.lengths))
    likelihood = torch.where(batch.targets > 0, chances, 1 - chances).log().sum()
    torch.testing.assert_close(task.loss(model, batch).total, -likelihood)


def test_the_temperature_that_sharpened_logits_were_multiplied_by_is_found() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4000, 3)) * 2
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = np.stack([generator.multinomial(1, row) for row in chances])
    assert best_temperature(logits * 3, targets) == pytest.approx(3, rel=0.06)
    binary = (generator.uniform(size=(4000, 2)) < 1 / (1 + np.exp(-logits[:, :2]))).astype(float)
    assert best_temperature(logits[:, :2] / 2, binary, several=True) == pytest.approx(0.5, rel=0.06)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("texts", [10, 98])
def test_no_mistake_on_a_few_texts_is_no_proof_that_there_never_is_one(texts: int, several: bool) -> None:
    targets = np.eye(2)[np.arange(texts) % 2]
    logits = np.where(targets > 0, 1.5, -1.5)
    said = to_probabilities(logits / best_temperature(logits, targets, several), several)
    assert said[targets > 0] == pytest.approx(1 - 1 / (texts + 2), abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.45, 0.5, 0.6, 0.9]), st.booleans()), min_size=1, max_size=30))
def test_no_threshold_has_a_higher_f1_than_the_chosen_one(pairs: list[tuple[float, bool]]) -> None:
    probabilities, truth = (np.array(column) for column in zip(*pairs, strict=True))

    def f1(limit: float) -> float:
        said = probabilities >= limit
        return 2 * (said & truth).sum() / max(1, said.sum() + truth.sum())

    chosen = best_threshold(probabilities, truth)
    assert f1(chosen) >= max(f1(limit) for limit in (0.2, 0.35, 0.47, 0.5, 0.55, 0.8)) - 1e-12


def test_two_odd_texts_do_not_move_a_threshold_where_the_model_thinks_otherwise() -> None:
    probabilities = np.array([0.99] * 10 + [0.3] + [0.2] * 2 + [0.01] * 30)
    truth = np.array([1.0] * 10 + [0.0] + [1.0] * 2 + [0.0] * 30)
    both, truths = (np.stack([1 - x, x], axis=1) for x in (probabilities, truth))
    assert best_threshold(probabilities, truth) == pytest.approx(0.105)  # what truths alone ask for
    assert thresholds(both, truths, ["ham", "spam"], Rule(), "spam") == {"spam": 0.5}
    assert thresholds(both, truths, ["ham", "spam"], Rule(several=True), None).keys() == {"ham", "spam"}
    assert thresholds(both, truths, ["ham", "spam"], Rule(), None) == {}


def test_an_answer_follows_the_threshold_and_a_folder_keeps_it(
    classifier: Classifier, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = Classifier(classifier.gpt, ["ham", "spam"], Rule(thresholds={"spam": 0.8}, cut="middle", temperature=2.0))
    model.save(tmp_path, tokenizer)
    rule = Classifier.load(tmp_path).rule
    assert rule == model.rule
    said = decide(np.array([[0.3, 0.7], [0.1, 0.9]]), model.labels, rule)
    assert said.tolist() == [[True, False], [False, True]]
    several = decide(np.array([[0.6, 0.7], [0.1, 0.2]]), ("a", "b"), Rule(several=True, thresholds={"b": 0.75}))
    assert several.tolist() == [[True, False], [False, False]]
