"""What the command line does with a foundation model: train one on shards, and measure one on text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pellucid.config import Evaluate, FitConfig, ModelConfig, Pretrain, as_dict, model_config
from pellucid.model.gpt import GPT
from pellucid.pretrain.evaluate import bytes_per_token, limited, measure, parts_of
from pellucid.pretrain.fit import fit, read_lines, settle_precision
from pellucid.pretrain.language import LanguageModelling, check_vocab, save_language_model
from pellucid.runtime import ConfigError, pick_device, problem, write_run
from pellucid.text.documents import read_documents
from pellucid.text.shards import Shards
from pellucid.text.tokenizer import Tokenizer

EVALUATION_TOKENS = 200_000


def train_language_model(
    shards: Shards, shape: ModelConfig, config: FitConfig, context: int, out: Path, resume: bool, in_order: bool = False
) -> dict[str, Any]:
    """Pretrain a fresh model of `shape` on windows of `context` tokens and save it to `out`.

    `in_order` meets the documents in the order of the shards, the first time through.
    """
    if context > shape.context_length:
        expected = f"at most {shape.context_length}, the model's context length"
        raise ConfigError(problem("--context", str(context), expected, "Change one of them."))
    torch.manual_seed(config.seed)
    model = GPT(shape).to(pick_device(config.device))
    task = LanguageModelling(shards, config, context, in_order)
    config, tried = settle_precision(model, task, config, out, resume)
    write_run(out, "pretrain", as_dict(config) | {"model": as_dict(shape), "context": context}, shards.hashes())
    progress = fit(model, task, config, out, resume)
    save_language_model(model, task, out)
    losses = [line["loss"] for line in read_lines(out / "metrics.jsonl") if line["split"] == "val"]
    return {
        "steps": progress.step,
        "tokens": progress.tokens,
        "tokens_per_s": round(progress.tokens / progress.step_seconds, 1),
        "val_loss": losses[-1],
        "dtype": config.dtype,
        "tried": tried,
    }


def pretrain(options: Pretrain) -> tuple[dict[str, Any], str]:
    """`pellucid pretrain`."""
    shards = Shards.open(options.data)
    shape = model_config(options.model, shards.vocab_size)
    config = FitConfig(
        steps=options.steps,
        minutes=0.0 if options.steps else options.minutes,
        batch_size=options.batch_size,
        seed=options.seed,
        optimizer=options.optimizer,
        dtype=options.dtype,
        device=options.device,
        checkpoint_every=options.checkpoint_every,
    )
    context = options.context or shape.context_length
    result = train_language_model(shards, shape, config, context, options.out, options.resume)
    return {"out": str(options.out), **result}, (
        f"{options.out}: {result['steps']:,} steps, {result['tokens']:,} tokens, "
        f"{result['tokens_per_s']:,.0f} tokens/s, validation loss {result['val_loss']:.3f}\n"
        f"Next: pellucid generate {options.out} --prompt 'Once'"
    )


def evaluate(options: Evaluate) -> tuple[dict[str, Any], str]:
    """`pellucid evaluate`: on the test split of shards, or on a text file."""
    model = GPT.load(options.run)
    tokenizer = Tokenizer.load(options.run)
    if (options.data / "shards.json").is_file():
        shards = Shards.open(options.data)
        shards.require_tokenizer(tokenizer)
        check_vocab(model, shards)
        tokens, offsets = shards.tokens("test"), shards.offsets("test")
    else:
        rows = [tokenizer.encode(document.text) for document in read_documents([options.data])]
        end = tokenizer.end_of_text
        tokens = np.array([end, *(token for row in rows for token in [*row, end])])
        offsets = np.cumsum([0, *(len(row) + 1 for row in rows)])
    parts = limited(list(parts_of(offsets, model.config.context_length)), EVALUATION_TOKENS)
    result = measure(model, tokens, parts, bytes_per_token(tokenizer, model.config.vocab_size)).summary()
    names = {"loss": "loss (nats a token)", "perplexity": "perplexity", "bits_per_byte": "bits per byte"}
    lines = []
    for key, name in names.items():
        low, high = result[f"{key}_interval"]
        lines.append(f"{name:>20}: {result[key]:.3f}   (95 %: {low:.3f} to {high:.3f})")
    return result, "\n".join([*lines, f"over {result['tokens']:,} tokens in {result['parts']:,} parts"])
