"""transformers is the oracle: the same logits, gradients, training and text, from each other's folders."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from pellucid.generation.engine import generate_batch, stream_ids
from pellucid.generation.sampling import Sampling
from pellucid.model.formats import of_family
from pellucid.model.gpt import GPT
from pellucid.pretrain.loss import token_loss
from tests.model.families import REAL, SHAPES, TINY, difference, lively, some_ids, theirs_like

LARGE = [pytest.param(name, marks=pytest.mark.nightly) for name in REAL]
TRAINED = [item for item in LARGE if item.values[0] not in ("GPT-2 355M", "GPT-2 774M", "GPT-2 1558M")]  # in 8 GB
CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "llam": "LlamaForCausalLM",
    "mist": "MistralForCausalLM",
    "qwen": "Qwen3ForCausalLM",
}
NEVER = -1  # an id that never comes


@cache
def tiny(name: str) -> GPT:
    return lively(TINY[name])


def their_loss(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(model(ids[:, :-1]).logits.flatten(0, 1), ids[:, 1:].flatten())


def our_loss(model: GPT, ids: torch.Tensor) -> torch.Tensor:
    loss = token_loss(model, ids[:, :-1], ids[:, 1:])
    return loss.total / loss.count


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_transformers_opens_our_folder_and_computes_the_same_logits(name: str, tmp_path: Path) -> None:
    model, ids = tiny(name), some_ids(TINY[name], 3, 48)
    model.save(tmp_path)
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs).__name__ == CLASSES[name[:4]]
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert difference(model(ids), theirs(ids).logits) < 1e-5


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_we_open_transformers_folder_and_what_we_save_again_has_the_same_bits(name: str, tmp_path: Path) -> None:
    theirs, ids = theirs_like(tiny(name)), some_ids(TINY[name], 2, 48)
    theirs.save_pretrained(tmp_path / "theirs")
    if name == "gpt2 sinusoidal":  # that the table is fixed is a word of ours
        settings = json.loads((tmp_path / "theirs" / "config.json").read_text())
        (tmp_path / "theirs" / "config.json").write_text(json.dumps(settings | {"positions": "sinusoidal"}))
    model = GPT.load(tmp_path / "theirs")
    assert model.config == TINY[name]
    assert difference(model(ids), theirs(ids).logits) < 1e-5
    model.save(tmp_path / "ours")
    AutoModelForCausalLM.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "again")
    files = [load_file(tmp_path / folder / "model.safetensors") for folder in ("theirs", "ours", "again")]
    assert files[0].keys() == files[1].keys() == files[2].keys()
    assert all(torch.equal(file[key], tensor) for file in files[1:] for key, tensor in files[0].items())


@pytest.mark.parametrize("name", [*TINY, *LARGE])
def test_logits_and_the_gradient_of_every_parameter_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    config, form = SHAPES[name], of_family(SHAPES[name].family)
    model, ids = lively(config, std=0.2 if name in TINY else 0.02), some_ids(config, 3, 48)
    model.save(tmp_path)
    logits = model(ids).detach()
    our_loss(model, ids).backward()
    ours = {key: parameter.grad for key, parameter in model.named_parameters()}
    ours |= {key: torch.zeros_like(buffer) for key, buffer in model.named_buffers()}
    gradients = form.to_theirs(ours, config)
    del model, ours  # GPT-2's largest: one model and its gradients at a time
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    expected = theirs(ids).logits.detach()
    their_loss(theirs, ids).backward()
    assert float((logits - expected).abs().max()) < 1e-4
    assert difference(logits, expected) < 1e-5
    wanted = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    assert gradients.keys() == wanted.keys()
    if config.positions == "sinusoidal":  # which transformers would train
        del gradients["transformer.wpe.weight"]
    differences = {key: difference(gradient, wanted[key]) for key, gradient in gradients.items()}
    assert {key: value for key, value in differences.items() if not value < 1e-5} == {}


@pytest.mark.parametrize("name", [*TINY, *TRAINED])
def test_twenty_steps_of_adamw_from_the_same_start_have_the_losses_of_transformers(name: str) -> None:
    config, steps = SHAPES[name], 20
    lr = 1e-3 if name in TINY else 1e-4  # a rate at which wide models diverge would make much of the last bit
    model = lively(config, std=0.2 if name in TINY else 0.02)
    theirs = theirs_like(model)
    if config.positions == "sinusoidal":
        theirs.transformer.wpe.weight.requires_grad_(False)
    ours_trained, theirs_trained = (
        torch.optim.AdamW((p for p in m.parameters() if p.requires_grad), lr=lr) for m in (model, theirs)
    )
    for step in range(steps):
        ids = some_ids(config, 2, 33 if name in TINY else 17, seed=step)
        losses = our_loss(model, ids), their_loss(theirs, ids)
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5), step
        for loss, optimizer in zip(losses, (ours_trained, theirs_trained), strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


PROMPTS = (1, 2, 3, 5, 8, 13, 14, 21)  # their lengths


def speaker(name: str) -> tuple[GPT, list[list[int]]]:
    config = replace(TINY[name], context_length=224)
    return lively(config, std=0.4), [some_ids(config, length, seed=length).tolist() for length in PROMPTS]


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_each_of_200_greedy_tokens_is_the_likeliest_to_both_who_read_all_before_it_without_a_cache(name: str) -> None:
    model, rows = speaker(name)
    theirs = theirs_like(model)
    batch = [ids for ids, _ in generate_batch(model, rows, 200, NEVER)]
    for row, made in zip(rows, batch, strict=True):
        for reader in (model, lambda ids: theirs(ids).logits):
            likeliest = reader(torch.tensor([row + made]))[0].argmax(dim=-1)
            assert likeliest[len(row) - 1 : -1].tolist() == made
    assert list(stream_ids(model, rows[3], 200, Sampling())) == batch[3]


@pytest.mark.nightly
@pytest.mark.parametrize("name", TINY)
def test_the_greedy_text_of_200_tokens_is_that_of_transformers_generate(name: str) -> None:
    model, rows = speaker(name)
    theirs, made = theirs_like(model), generate_batch(model, rows, 200, NEVER)
    options: dict[str, Any] = {"max_new_tokens": 200, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    for row, (ids, _) in zip(rows, made, strict=True):
        prompt = torch.tensor([row])
        expected = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
        assert ids == expected[0, len(row) :].tolist()
