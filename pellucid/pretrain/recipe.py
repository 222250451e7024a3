"""The one rule that turns a model and a budget (minutes or tokens) into a batch, rates and a schedule.

    tokens   --tokens; with --minutes, what a machine that computes 100 GFLOP/s (a GPU: 100 TFLOP/s) would read in them
    steps    2,800 × (tokens / 3 million)^¼
    batch    tokens / steps, in windows, to the nearest power of two, and a multiple of the processes
    rates    AdamW's 0.005 × 96 / width (at most 0.005), Muon's 0.03 for its matrices
    schedule a rise over 5 %, a plateau, a straight fall to zero over the last 60 %

It joins two recipes that work, by a straight line between their logarithms: the quickstart's (3 million tokens in
batches of 1,024, width 96, docs/performance.md) and GPT-2's of 124 million parameters (10 billion tokens in batches of
half a million, width 768, rate 0.0006). With --steps alone, tokens are not known, and the batch is 32 windows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pellucid.compute import pick_device
from pellucid.config import FitConfig, ModelConfig
from pellucid.model.gpt import GPT
from pellucid.model.outline import Outline
from pellucid.options import Fitting, Training, WrittenRun
from pellucid.pretrain.distributed import launched
from pellucid.pretrain.loggers import check_installed
from pellucid.runtime import ConfigError, inform, problem

ASSUMED_FLOPS = {"cpu": 1e11, "mps": 1e12, "cuda": 1e14}
WITH_STEPS = 32  # windows


def check_context(context: int, shape: ModelConfig) -> None:
    """ConfigError for windows that the model has no room for."""
    if not 1 <= context <= shape.context_length:
        expected = f"at least 1 and at most {shape.context_length}, the model's context length"
        raise ConfigError(problem("--context", str(context), expected, "Change one of them."))


def flops_per_token(shape: ModelConfig, context: int) -> int:
    """Multiplications and additions to train on one token: forward, and twice as much backward.

    Six for each parameter that multiplies (all matrices, and the token embedding once, as the logits), and for each
    layer 12 × its width × the tokens looked at, half of the context on average. As in Kaplan et al. 2020, section 2.1.
    """
    with Outline():
        model = GPT(shape)
    weights = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embedding" not in name)
    logits = (
        0 if any("output_layer" in name for name, _ in model.named_parameters()) else shape.vocab_size * shape.d_model
    )
    looked_at = shape.n_layers * shape.n_heads * shape.d_head * context // 2
    return 6 * (weights + logits) + 12 * looked_at


def budget(options: Training, shape: ModelConfig, context: int) -> float:
    """Tokens that the run will read, as far as can be told before it runs."""
    if options.tokens:
        return options.tokens
    speed = ASSUMED_FLOPS[pick_device(options.device).type] * launched()
    return 60 * options.minutes * speed / flops_per_token(shape, context)


def batch_of(tokens: float, context: int, processes: int = 1) -> int:
    """Windows of `context` tokens in a batch, for a run of so many tokens."""
    steps = 2800 * (max(tokens, 1) / 3e6) ** 0.25
    windows = 1 << max(0, round(math.log2(max(tokens / steps / context, 1))))
    return math.ceil(windows / processes) * processes


def rate_of(width: int) -> float:
    """Peak rate of AdamW for a model so wide."""
    return 5e-3 * min(1.0, 96 / width)


def fit_config(
    options: Training, shape: ModelConfig, context: int, begun: Mapping[str, Any] | None = None
) -> FitConfig:
    """What the loop needs of the command line; what is not given there follows from the rule. A --lr scales both rates.

    With --steps neither minutes nor tokens count, with --tokens no minutes. Of a run that goes on, `begun` with other
    settings, the batch stays what it was: the rule would have another one for another number of processes.
    """
    for name, amount in (("--tokens", options.tokens), ("--minutes", options.minutes)):
        if not 0 <= amount < math.inf:
            raise ConfigError(problem(name, f"{amount}", "a number above 0", "Change it."))
    batch = (begun or {}).get("batch_size") if options.batch_size is None else options.batch_size
    if batch is None:
        batch = WITH_STEPS if options.steps else batch_of(budget(options, shape, context), context, launched())
    if launched() > max(batch, 1):
        found = f"a batch of {batch} for {launched()} processes"
        raise ConfigError(problem("--batch-size", found, "a window for each at least", "Give a larger batch."))
    steps = options.steps or math.ceil(options.tokens / max(batch * context, 1))
    if options.batch_size and batch > 0:
        say_if_few(batch, context, steps * batch * context or budget(options, shape, context))
    rate = rate_of(shape.d_model)
    scale = options.lr / rate if options.lr else 1.0
    return FitConfig(
        **asked(options, optimizer="muon")
        | {
            "steps": steps,
            "minutes": 0.0 if steps else options.minutes,
            "batch_size": batch,
            "lr": rate * scale,
            "matrix_lr": 0.03 * scale,
        }
    )


def say_if_few(batch: int, context: int, tokens: float) -> None:
    """Say where a batch that was asked for is far below the rule's for so many tokens: the loss may stop falling."""
    rule = batch_of(tokens, context)
    if 2 * batch < rule:
        inform(
            f"--batch-size {batch}: {batch * context:,} tokens a step, where the rule for {tokens:,.0f} tokens has "
            f"{rule * context:,}; with so few the loss may stop falling early. Leave it out, or raise it: what memory "
            "asks for is --micro-batch-size."
        )


def asked(options: Fitting, optimizer: str) -> dict[str, Any]:
    """What the loop is to do by these options, as settings of FitConfig; `optimizer` is the recipe's.

    What cannot be had on this machine (a device, a package to log with) is an error here, before anything is loaded.
    """
    if options.evaluations < 1:
        raise ConfigError(
            problem("--evaluations", f"{options.evaluations}", "1 or more", "The last one is at the end.")
        )
    pick_device(options.device)
    if isinstance(options, WrittenRun):
        check_installed(options.log)
    both = {item.name for item in fields(options)} & {item.name for item in fields(FitConfig)}
    settings = {name: getattr(options, name) for name in both} | {"evaluate_share": 1 / options.evaluations}
    return settings | ({"optimizer": optimizer} if options.optimizer == "auto" else {})
