"""What a training run will take, before anything runs: parameters, FLOPs, memory, and time on this machine.

What autograd will keep is not guessed by a formula: the real model runs once on fake tensors, which have shapes but no
numbers. Speed and peak memory come from a probe, a process of its own that trains for about ten seconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from pellucid.compute import keep_freed_memory, peak_memory_bytes, pick_device
from pellucid.config import FitConfig, ModelConfig, as_dict, model_config
from pellucid.machine import memory_bytes
from pellucid.model.cache import KVCache
from pellucid.model.gpt import GPT
from pellucid.model.outline import Outline
from pellucid.options import Plan
from pellucid.pretrain.fit import LOOKING
from pellucid.pretrain.language import VALIDATION_TOKENS, TokenBatch
from pellucid.pretrain.loss import Loss, token_loss
from pellucid.pretrain.optim import make_optimizers, numbers_kept
from pellucid.pretrain.recipe import check_context, fit_config, flops_per_token
from pellucid.pretrain.speed import measure_speed
from pellucid.pretrain.step import micro_batch_of, train_step
from pellucid.runtime import ConfigError, problem
from pellucid.text.shards import Shards

PROBE_SECONDS = 10.0
FEWEST_STEPS = 3
GIB = 2**30
Json = dict[str, Any]


@dataclass(frozen=True)
class Memory:
    """Bytes that a training step holds at once, and those of the cache for one text while generating."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    cache: int

    @property
    def training(self) -> int:
        """All of it but the cache."""
        return self.weights + self.gradients + self.optimizer + self.activations


def memory(shape: ModelConfig, config: FitConfig, context: int) -> Memory:
    """The bytes of each part, for windows of `context` tokens."""
    rows = config.micro_batch_size or config.batch_size
    if not config.micro_batch_size and pick_device(config.device).type == "cpu":
        rows = micro_batch_of(rows, shape, context)
    with FakeTensorMode():
        model = GPT(shape).train()
        ids = torch.zeros(rows, context, dtype=torch.long)
        activations = kept_by_autograd(model, ids, config)
        if config.recompute:  # what goes into each block stays, and all of the one that is computed again
            model.recompute = True
            outside = kept_by_autograd(model, ids, config)
            inputs = 4 * ids.numel() * shape.d_model * shape.n_layers
            activations = outside + inputs + (activations - outside) // shape.n_layers
        weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        optimizer = sum(
            numbers_kept(each, parameter) * parameter.element_size()
            for each in make_optimizers(model, config)
            for group in each.param_groups
            for parameter in group["params"]
        )
        cache = KVCache(shape, 1, shape.context_length)
        cache_bytes = sum(part.numel() * part.element_size() for part in (cache.keys, cache.values))
    return Memory(weights, weights, optimizer, activations, cache_bytes)


def kept_by_autograd(model: GPT, ids: Tensor, config: FitConfig) -> int:
    """Bytes that one forward pass saves for the backward one, weights left out."""
    kept: dict[int, tuple[Any, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[id(storage)] = (storage, storage.nbytes())  # the storage too, so that no other takes its id
        return tensor

    halved = torch.autocast("cpu", torch.bfloat16, enabled=config.dtype == "bfloat16")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), halved:
        loss = token_loss(model, ids, ids)  # while this lives, so do they
    own = {id(parameter.untyped_storage()) for parameter in model.parameters()}
    assert loss.count
    return sum(size for number, (_, size) in kept.items() if number not in own)


# ---------------------------------------------------------------- the probe


@dataclass
class RandomText:
    """Any tokens at all, as a task for `fit`: they take as long as real ones."""

    config: FitConfig
    vocab_size: int
    context: int
    name: str = "probe"

    def batches(self, step: int) -> Sequence[TokenBatch]:
        """The batch of a step."""
        generator = torch.Generator().manual_seed(step)
        shape = (self.config.batch_size, self.context)
        ids = torch.randint(self.vocab_size, shape, generator=generator)
        return [TokenBatch(ids, ids)]

    def loss(self, model: GPT, batch: TokenBatch) -> Loss:
        """As in pretraining."""
        return token_loss(model, batch.inputs.to(model.device), batch.targets.to(model.device))

    def evaluate(self, model: GPT) -> dict[str, float]:
        """Nothing is held out."""
        return {}

    def sample(self, model: GPT) -> str:
        """Nothing to show."""
        return ""


def probe(shape: ModelConfig, config: FitConfig, context: int) -> Json:
    """Train a fresh model for about ten seconds in a process of its own: precision, seconds a step, peak memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found: Json = pool.submit(_probe, shape, config, context).result()
    return found


def _probe(shape: ModelConfig, config: FitConfig, context: int) -> Json:
    keep_freed_memory()
    model = GPT(shape).to(pick_device(config.device))
    model.recompute = config.recompute
    task = RandomText(config, shape.vocab_size, context)
    if config.dtype == "auto":
        config = replace(config, dtype=measure_speed(model, task, config, steps=1).dtype)  # type: ignore[arg-type]
    optimizers = make_optimizers(model, config)
    train_step(model, task, optimizers, config, 0, 0.5)
    seconds: list[float] = []
    began = time.perf_counter()
    while len(seconds) < FEWEST_STEPS or time.perf_counter() - began < PROBE_SECONDS:
        step_began = time.perf_counter()
        train_step(model, task, optimizers, config, len(seconds) + 1, 0.5)
        seconds.append(time.perf_counter() - step_began)
    peak = peak_memory_bytes()
    ids = task.batches(0)[0].inputs[:4]
    model.eval()
    with torch.inference_mode():
        began = time.perf_counter()
        token_loss(model, ids.to(model.device), ids.to(model.device))
        read_s = (time.perf_counter() - began) / ids.numel()
    step_s = statistics.median(seconds)
    return {"dtype": config.dtype, "step_s": step_s, "evaluation_s": read_s * VALIDATION_TOKENS, "peak_memory": peak}


# ---------------------------------------------------------------- the verb


def plan(options: Plan) -> tuple[Json, str]:
    """`pellucid plan`."""
    shards = Shards.open(options.data, verify=False) if options.data else None
    vocab_size = shards.vocab_size if shards else options.vocab_size
    shape = model_config(options.model, vocab_size)
    context = options.context or shape.context_length
    check_context(context, shape)
    config = fit_config(options, shape, context)
    with Outline():
        parts = GPT(shape).parts()
    needed, free = memory(shape, config, context), int(memory_bytes().get("free", 0))
    result: Json = {
        "model": as_dict(shape),
        "parameters": {"all": sum(size for _, size in parts), **dict(parts)},
        "flops_per_token": flops_per_token(shape, context),
        "memory": {**vars(needed), "training": needed.training, "free": free},
    }
    if options.probe:
        if free and needed.training > 0.9 * free:
            found = f"{needed.training / GIB:.1f} GiB for a step, {free / GIB:.1f} GiB free"
            advice = "Lower --batch-size, --micro-batch-size or --context, or plan without the probe: --no-probe."
            raise ConfigError(problem("memory", found, "less than nine tenths of what is free", advice))
        result |= with_time(probe(shape, config, context), config, context, result["flops_per_token"], shards)
    return result, as_text(result)


def with_time(found: Json, config: FitConfig, context: int, flops: int, shards: Shards | None) -> Json:
    """What the probe found, carried over to the whole run."""
    tokens_per_s = config.batch_size * context / found["step_s"]
    evaluations = found["evaluation_s"] / config.evaluate_share
    if not config.steps:
        evaluations = min(evaluations, LOOKING * 60 * config.minutes)
    steps = config.steps or int((60 * config.minutes - evaluations) / found["step_s"])
    time_needed: Json = {
        **found,
        "tokens_per_s": tokens_per_s,
        "flops_per_s": flops * tokens_per_s,
        "steps": steps,
        "tokens": steps * config.batch_size * context,
        "minutes": (steps * found["step_s"] + evaluations) / 60,
    }
    if shards:
        time_needed["epochs"] = time_needed["tokens"] / len(shards.tokens("train"))
    return {"run": time_needed}


def as_text(result: Json) -> str:
    """The plan as people read it."""
    everything = result["parameters"]["all"]
    rows = [("parameters", "", "")]
    rows += [(name, f"{n:,}", f"{n / everything:.1%}") for name, n in result["parameters"].items()]
    rows.append(("memory of a training step", "", ""))
    for name in ("weights", "gradients", "optimizer", "activations", "training"):
        rows.append((name, f"{result['memory'][name] / GIB:.3f} GiB", ""))
    rows.append(("cache of one text, while generating", f"{result['memory']['cache'] / GIB:.3f} GiB", ""))
    rows.append(("FLOPs to train on a token", f"{result['flops_per_token'] / 1e6:,.1f} million", ""))
    if run := result.get("run"):
        rows.append(("on this machine (trained for ten seconds)", "", ""))
        rows.append(("precision", run["dtype"], ""))
        rows.append(("speed", f"{run['tokens_per_s']:,.0f} tokens/s", f"{run['flops_per_s'] / 1e9:,.0f} GFLOP/s"))
        rows.append(("peak memory of the process", f"{run['peak_memory'] / GIB:.2f} GiB", ""))
        rows.append(("time", f"{run['minutes']:.1f} minutes", f"{run['steps']:,} steps"))
        rows.append(("tokens", f"{run['tokens']:,}", f"{run['epochs']:.2f} epochs" if "epochs" in run else ""))
    wide = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:<{wide}}  {value:>18}  {note:>12}".rstrip() for name, value, note in rows)
