"""New special tokens make the embedding grow: old rows stay, new ones are their mean, and transformers agrees."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.testing import assert_close
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from pellucid.config import ModelConfig
from pellucid.model.gpt import GPT
from pellucid.text.bpe import BPETokenizer


@torch.no_grad()
def test_a_model_with_new_special_tokens_opens_in_transformers_with_its_old_logits(tmp_path: Path) -> None:
    torch.manual_seed(3)
    tokenizer = BPETokenizer.train(["the fox and the grapes"], 260)
    config = ModelConfig(vocab_size=tokenizer.vocab_size, context_length=16, d_model=24, n_layers=2, n_heads=3)
    model = GPT(config).eval()
    old, ids = model.token_embedding.weight.clone(), torch.tensor([tokenizer.encode("the fox")])
    before = model(ids)

    assert tokenizer.add_special_tokens(["<|one|>", "<|two|>"]) == 2
    model.resize_vocab(tokenizer.vocab_size)
    model.save(tmp_path)
    tokenizer.save(tmp_path)

    theirs = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    rows = theirs.get_input_embeddings().weight
    size = config.vocab_size
    assert theirs.config.vocab_size == len(AutoTokenizer.from_pretrained(tmp_path)) == size + 2
    assert torch.equal(rows[:size], old)
    assert torch.equal(rows[size], old.mean(0)) and torch.equal(rows[size + 1], old.mean(0))
    assert theirs.lm_head.weight.data_ptr() == rows.data_ptr()  # the output is tied to it
    logits = theirs(ids).logits
    assert_close(logits[..., :size], before)
    assert_close(logits[..., size:], before.mean(-1, keepdim=True).expand(-1, -1, 2))


@torch.no_grad()
def test_the_new_rows_are_where_transformers_would_put_them() -> None:
    torch.manual_seed(4)
    model = GPT(ModelConfig(vocab_size=40, context_length=16, d_model=24, n_layers=1, n_heads=3))
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=24, n_layer=1, n_head=3))
    theirs.transformer.wte.weight.copy_(model.token_embedding.weight)
    theirs.resize_token_embeddings(43, mean_resizing=True)  # the mean, and noise of a billionth of the covariance
    model.resize_vocab(43)
    assert_close(theirs.get_input_embeddings().weight, model.token_embedding.weight, atol=1e-4, rtol=0)
