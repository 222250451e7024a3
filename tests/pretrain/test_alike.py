"""Tokens that no text holds: one row of logits stands for all of them, and nobody could tell from what is learnt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.config import FitConfig, ModelConfig
from pellucid.finetune.instruct import InstructionTuning, prepare_model
from pellucid.finetune.instructions import Example
from pellucid.model.gpt import GPT
from pellucid.pretrain.alike import find_alike, start_alike
from pellucid.pretrain.commands import train_language_model
from pellucid.pretrain.fit import fit
from pellucid.pretrain.language import LanguageModelling
from pellucid.pretrain.loss import explicit_token_loss, token_loss
from pellucid.pretrain.optim import make_optimizers
from pellucid.text.bpe import BPETokenizer
from pellucid.text.documents import Document
from pellucid.text.shard_writer import write_shards
from pellucid.text.shards import Shards

CONTEXT = 16


def small_model(vocab_size: int = 40) -> GPT:
    torch.manual_seed(0)
    return GPT(ModelConfig(vocab_size=vocab_size, context_length=CONTEXT, d_model=16, n_layers=2, n_heads=2))


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 39), min_size=1, max_size=36), st.booleans(), st.integers(0, 2**31))
def test_the_loss_and_all_gradients_are_those_of_the_whole_vocabulary(ids: set[int], halved: bool, seed: int) -> None:
    model, draw = small_model(), torch.Generator().manual_seed(seed)
    used = torch.zeros(40, dtype=torch.bool)
    used[list(ids)] = True
    start_alike(model.output_weight, used)
    alike = find_alike(model.output_weight, used)
    assert alike is not None and alike.count == 40 - len(ids) and len(alike.rows) == len(ids) + 1
    inputs, targets = torch.tensor(sorted(ids))[torch.randint(0, len(ids), (2, 3, 12), generator=draw)]
    with torch.autocast("cpu", torch.bfloat16, enabled=halved):
        fast, whole = (token_loss(model, inputs, targets, alike=each) for each in (alike, None))
    plain = whole if halved else explicit_token_loss(model, inputs, targets)
    torch.testing.assert_close(fast.total, plain.total, rtol=1e-5, atol=1e-5)
    ours, theirs = (torch.autograd.grad(loss.total / loss.count, list(model.parameters())) for loss in (fast, whole))
    rounding = 2**-6 if halved else 2**-17  # bfloat16 tells 2**-8 apart, float32 2**-23; sums of many add up
    largest = max(float(gradient.abs().max()) for gradient in theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=rounding, atol=rounding * max(1.0, largest))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_after_many_steps_the_weights_are_those_of_the_whole_vocabulary_and_the_rows_still_alike(
    optimizer: str,
) -> None:
    used = torch.arange(40) < 25
    draw = torch.Generator().manual_seed(1)
    batches = torch.randint(0, 25, (30, 2, 4, 12), generator=draw)

    def trained(alike_rows: bool) -> GPT:
        model = small_model()
        start_alike(model.output_weight, used)
        alike = find_alike(model.output_weight, used) if alike_rows else None
        optimizers = make_optimizers(model, FitConfig(steps=30, optimizer=optimizer, dtype="float32"))
        for inputs, targets in batches:
            loss = token_loss(model, inputs, targets, alike=alike)
            (loss.total / loss.count).backward()
            for each in optimizers:
                each.step()
            model.zero_grad()
        return model

    ours, whole = trained(True), trained(False)
    for (name, one), other in zip(ours.named_parameters(), whole.parameters(), strict=True):
        if not name.endswith("key.bias"):  # its gradient is nothing but rounding: softmax does not see it
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    again = find_alike(ours.output_weight, used)
    assert again is not None and again.count == 15
    assert ours.output_weight[30].norm() > 0  # they have moved, together


def test_rows_that_differ_are_not_taken_for_alike_nor_are_few_ones() -> None:
    weight = small_model().output_weight
    assert find_alike(weight, torch.arange(40) < 25) is None
    start_alike(weight, torch.arange(40) < 38)
    assert find_alike(weight, torch.arange(40) < 38) is None
    start_alike(weight, torch.arange(40) < 30)
    found = find_alike(weight, torch.arange(40) < 10)  # twenty of those that are not used were, before
    assert found is not None and found.count == 10 and set(found.rows.tolist()) == {*range(31)}


def test_ids_behind_those_of_the_tokenizer_are_used_by_nobody() -> None:
    weight = small_model().output_weight
    start_alike(weight, torch.arange(40) < 25)
    found = find_alike(weight, torch.ones(20, dtype=torch.bool))
    assert found is not None and found.count == 15


@pytest.fixture(scope="module")
def wordy(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """Shards of few words with all their scaffolding: of 256 bytes hardly any is met."""
    train = [Document(f"the quiet badger {i % 7} sleeps quietly\n", str(i)) for i in range(60)]
    tokenizer = BPETokenizer.train([document.text for document in train], vocab_size=300)
    splits = {"train": train, "val": train[:3], "test": train[3:6]}
    return write_shards(splits, tokenizer, tmp_path_factory.mktemp("wordy") / "shards")


def test_a_task_knows_the_tokens_of_its_texts(wordy: Shards) -> None:
    task = LanguageModelling(wordy, FitConfig(steps=1), CONTEXT)
    assert set(task.used().nonzero()[:, 0].tolist()) == set(map(int, wordy.tokens("train")))


def test_pretraining_lets_the_tokens_of_no_text_start_and_stay_alike(wordy: Shards, tmp_path: Path) -> None:
    config = FitConfig(steps=6, batch_size=4, dtype="float32")
    train_language_model(wordy, small_model(wordy.vocab_size).config, config, CONTEXT, tmp_path, resume=False)
    used = LanguageModelling(wordy, config, CONTEXT).used()
    found = find_alike(GPT.load(tmp_path).output_weight, used)
    assert found is not None and found.count == int((~used).sum()) > 200


def test_the_loop_finds_what_is_alike_and_finetuning_goes_on_with_it(wordy: Shards, tmp_path: Path) -> None:
    config = FitConfig(steps=6, batch_size=4, dtype="float32")
    model, task = small_model(wordy.vocab_size), LanguageModelling(wordy, config, CONTEXT)
    start_alike(model.output_weight, task.used())
    fit(model, task, config, tmp_path / "base")
    assert task.alike is not None and task.alike.count == int((~task.used()).sum())

    tokenizer = wordy.tokenizer()
    prepare_model(model, tokenizer)
    examples = [Example(f"Zoo {i}?", "", "Xyz.") for i in range(8)]
    tuning = InstructionTuning({"train": examples, "val": examples[:2], "test": []}, tokenizer, config, CONTEXT, task)
    met = {token for batch in tuning.batches(0) for token in batch.targets.unique().tolist()}
    assert all(tuning.used()[token] for token in met)
    assert tuning.used().sum() > task.used().sum()
    fit(model, tuning, config, tmp_path / "assistant")
    assert tuning.alike is not None and tuning.alike.count < task.alike.count
    for each in (task, tuning):  # both look at it: were it wrong, so would be their losses
        batch = each.batches(0)[0]
        loss = each.loss(model, batch).total.item()
        each.alike = replace(each.alike, count=10**6)
        assert each.loss(model, batch).total.item() > loss + 1
