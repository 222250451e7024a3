"""One training loop of `benchmarks/train.py`, in a process of its own: `contenders.py NAME CASE`.

Reads a line for each optimizer step that it is to take, and answers with the step's loss and seconds and the peak
memory so far. Everybody: the shape of GPT-2, random weights, the same random tokens, AdamW, gradients clipped to a norm
of 1; precision, kernels and all else as the library comes. A peer is imported in its own function only, because each
lives in an environment of its own.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

Case = dict[str, Any]
Step = Callable[[int], float]
RATE = 6e-4


def main() -> None:
    """Build the contender, then step whenever a line comes."""
    name, case = sys.argv[1], json.loads(sys.argv[2])
    torch.manual_seed(0)
    step = CONTENDERS[name](case)
    for number, _ in enumerate(sys.stdin):
        began = time.perf_counter()
        loss = step(number)
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "loss": loss, "peak_MB": peak()}), flush=True)


def peak() -> float:
    """Peak memory of this program in MB. What Linux counts for the process includes the one that it was forked from."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return round(int(line.split()[1]) / 1024, 1)
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(size / (1024 if sys.platform != "darwin" else 1 << 20), 1)


def tokens(case: Case, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets (B, T) of a step: random, so that nothing depends on a data set."""
    dice = torch.Generator().manual_seed(number)
    rows = torch.randint(case["vocab_size"], (case["batch"], case["context"] + 1), generator=dice)
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def plain_loop(case: Case, model: nn.Module, loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Step:
    """The loop that one writes around a library's model."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1)

    def step(number: int) -> float:
        optimizer.zero_grad()
        loss = loss_of(*tokens(case, number))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    return step


def pellucid(case: Case) -> Step:
    """The engine as `pellucid pretrain --optimizer adamw` runs it: precision settled by trial, then step after step."""
    from pellucid.compute import exact_products, keep_freed_memory
    from pellucid.config import FitConfig, ModelConfig
    from pellucid.model.gpt import GPT
    from pellucid.pretrain.language import TokenBatch
    from pellucid.pretrain.optim import make_optimizers
    from pellucid.pretrain.plan import RandomText
    from pellucid.pretrain.speed import settle_precision
    from pellucid.pretrain.step import train_step

    class SameTokens(RandomText):
        def batches(self, step: int) -> list[TokenBatch]:
            return [TokenBatch(*tokens(case, step))]

    shape = ModelConfig(
        family="gpt2", vocab_size=case["vocab_size"], context_length=1024, d_model=case["width"],
        n_layers=case["layers"], n_heads=case["heads"], dropout=0.0,
    )  # fmt: skip
    config = FitConfig(steps=100, batch_size=case["batch"], optimizer=case.get("optimizer", "adamw"), lr=RATE)
    model = GPT(shape)
    task = SameTokens(config, case["vocab_size"], case["context"])
    exact_products()
    keep_freed_memory()
    config, tried = settle_precision(model, task, config, Path(), resume=False)
    print(config.dtype, tried, file=sys.stderr)
    optimizers = make_optimizers(model, config)
    return lambda number: float(train_step(model, task, optimizers, config, number, 0.5)["loss"])


def pellucid_muon(case: Case) -> Step:
    """The same with the optimizer that `pellucid pretrain` takes when none is named."""
    return pellucid(case | {"optimizer": "muon"})


def transformers(case: Case) -> Step:
    """GPT2LMHeadModel, which computes the loss itself."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=case["vocab_size"], n_embd=case["width"], n_layer=case["layers"], n_head=case["heads"],
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, loss_type="ForCausalLM",
        )
    )  # fmt: skip

    def loss_of(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = model(input_ids=inputs, labels=inputs, shift_labels=targets, use_cache=False).loss
        return loss

    return plain_loop(case, model, loss_of)


def litgpt(case: Case) -> Step:
    """A model of GPT-2's sizes (positions are rotary, as litgpt has no learnt ones), tied, with its chunked loss."""
    from litgpt import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    config = Config(
        name="gpt2", block_size=1024, vocab_size=case["vocab_size"], padded_vocab_size=case["vocab_size"],
        n_layer=case["layers"], n_head=case["heads"], n_embd=case["width"], parallel_residual=False, bias=True,
        gelu_approximate="tanh", rotary_percentage=1.0,
    )  # fmt: skip
    model = GPT(config)
    model.lm_head.weight = model.transformer.wte.weight
    for parameter in model.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.02)
    return plain_loop(case, model, lambda inputs, targets: chunked_cross_entropy(model(inputs), targets))


def llms_from_scratch(case: Case) -> Step:
    """The book's model, and the loss of its chapter 5."""
    from llms_from_scratch.ch04 import GPTModel
    from llms_from_scratch.ch05 import calc_loss_batch

    model = GPTModel(
        {"vocab_size": case["vocab_size"], "context_length": 1024, "emb_dim": case["width"], "n_heads": case["heads"],
         "n_layers": case["layers"], "drop_rate": 0.0, "qkv_bias": True}
    )  # fmt: skip
    return plain_loop(case, model, lambda inputs, targets: calc_loss_batch(inputs, targets, model, "cpu"))


CONTENDERS: dict[str, Callable[[Case], Step]] = {
    "pellucid": pellucid,
    "pellucid, Muon": pellucid_muon,
    "transformers": transformers,
    "litgpt": litgpt,
    "llms-from-scratch": llms_from_scratch,
}


if __name__ == "__main__":
    main()
