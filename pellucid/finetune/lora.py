"""Train a part of a model: all of it, its last blocks, its head, or low-rank matrices beside frozen ones (LoRA).

A LoRA layer computes W x + (alpha / rank) B A x with W frozen, in float32 or in int8. Saved as an adapter folder that
`peft` opens: where GPT-2's format has queries, keys and values in one matrix, their three adapters become one of three
times the rank. Merged, the model is again one like any other.
Papers: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"; Dettmers et al. 2023, "QLoRA".
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from pellucid.model.gpt import GPT
from pellucid.runtime import ConfigError, atomic_file, problem, write_json

# B batch, T tokens, I inputs and O outputs of a layer, R rank

TARGETS = (
    "attention.query", "attention.key", "attention.value", "attention.output",
    "feed_forward.gate", "feed_forward.expand", "feed_forward.contract",
)  # fmt: skip


@dataclass(frozen=True)
class Lora:
    """How large the adapters are, and beside which layers they stand (endings of their names)."""

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = TARGETS
    base: str = "float32"
    """Precision of the frozen matrices: float32 or int8."""

    def __post_init__(self) -> None:
        if self.rank < 1 or not 0 < self.alpha < math.inf:
            found = f"rank {self.rank} and alpha {self.alpha}"
            raise ConfigError(problem("--train lora", found, "both above 0", "Leave them out for 8 and 16."))
        if unknown := [name for name in self.targets if name not in TARGETS]:
            advice = f"Known: {', '.join(TARGETS)}."
            raise ConfigError(problem("--lora-targets", repr(unknown[0]), "names of layers in a block", advice))


class LoraLinear(nn.Module):
    """A frozen linear layer, with a low-rank matrix beside it that starts at zero."""

    def __init__(self, layer: nn.Linear, lora: Lora) -> None:
        super().__init__()
        rank = min(lora.rank, layer.in_features, layer.out_features)
        self.rank, self.alpha = rank, lora.alpha * rank / lora.rank
        self.base: nn.Module = Int8Linear(layer) if lora.base == "int8" else layer
        device = layer.weight.device
        self.a = nn.Parameter(torch.empty(rank, layer.in_features, device=device))
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(…, I) → (…, O)."""
        beside = F.linear(F.linear(x, self.a), self.b)
        summed: Tensor = self.base(x) + beside * (self.alpha / self.rank)
        return summed

    def merged(self) -> nn.Linear:
        """One plain layer that computes the same."""
        layer = self.base.plain() if isinstance(self.base, Int8Linear) else self.base
        assert isinstance(layer, nn.Linear)
        with torch.no_grad():
            layer.weight += self.b @ self.a * (self.alpha / self.rank)
        return layer


class Int8Linear(nn.Module):
    """A frozen layer kept in a quarter of the memory: whole numbers from -127 to 127 and a scale for each output."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach()  # (O, I)
        scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        self.register_buffer("numbers", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        bias: Tensor | None = layer.bias
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(…, I) → (…, O)."""
        numbers, scale, bias = (self._buffers[name] for name in ("numbers", "scale", "bias"))
        result: Tensor = Int8Product.apply(x, numbers, scale)  # type: ignore[no-untyped-call]
        return result if bias is None else result + bias

    def plain(self) -> nn.Linear:
        """The layer as float32 again, rounded as it is."""
        numbers, scale, bias = (self._buffers[name] for name in ("numbers", "scale", "bias"))
        assert numbers is not None and scale is not None
        layer = nn.Linear(numbers.shape[1], numbers.shape[0], bias=bias is not None, device=numbers.device)
        with torch.no_grad():
            layer.weight.copy_(numbers.float() * scale)
            if bias is not None:
                layer.bias.copy_(bias)
        return layer


class Int8Product(torch.autograd.Function):
    """x Wᵀ with W kept as int8; it is made float for a moment in each direction and not kept for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, numbers: Tensor, scale: Tensor) -> Tensor:
        """(…, I) by (O, I) → (…, O)."""
        ctx.save_for_backward(numbers, scale)
        return F.linear(x, numbers.to(x.dtype)) * scale.T.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of x; W is never trained."""
        numbers, scale = ctx.saved_tensors
        gradient = gradients[0]
        return (gradient * scale.T.to(gradient.dtype)) @ numbers.to(gradient.dtype), None, None


# ---------------------------------------------------------------- what is trained


def train_part(model: nn.Module, gpt: GPT, train: str, lora: Lora | None = None) -> None:
    """Freeze all of `model` but what `train` names: all, last-K (blocks, with the final norm), head, or lora.

    Parameters of `model` outside `gpt` (a classifier's head) are always trained. ConfigError for anything else.
    """
    layers = len(gpt.blocks)
    last = re.fullmatch(r"last-(\d+)", train)
    if train not in ("all", "head", "lora") and not (last and 1 <= int(last[1]) <= layers):
        expected = f"all, last-1 to last-{layers}, head or lora"
        raise ConfigError(problem("--train", repr(train), expected, "Choose one of them."))
    if train == "head" and model is gpt:
        raise ConfigError(problem("--train", "'head'", "all, last-K or lora", "Only a classifier has a head."))
    if train == "all":
        return
    gpt.requires_grad_(False)
    if last:
        for part in (*gpt.blocks[layers - int(last[1]) :], gpt.final_norm):
            part.requires_grad_(True)
    elif train == "lora":
        add_adapters(gpt, lora or Lora())


def add_adapters(gpt: GPT, lora: Lora) -> None:
    """Put a LoRA layer in place of each target of each block.

    ConfigError for a target that the blocks lack, where not all are meant.
    """
    there = [name for name, part in gpt.blocks[0].named_modules() if name in TARGETS and isinstance(part, nn.Linear)]
    if lora.targets != TARGETS and (missing := [name for name in lora.targets if name not in there]):
        expected = f"layers of this model's blocks ({', '.join(there)})"
        raise ConfigError(problem("--lora-targets", repr(missing[0]), expected, "Choose among them."))
    for block in gpt.blocks:
        for name in lora.targets:
            half, _, part = name.partition(".")
            parent = block.get_submodule(half)
            if isinstance(getattr(parent, part, None), nn.Linear):
                setattr(parent, part, LoraLinear(getattr(parent, part), lora))


def adapters(gpt: GPT) -> dict[str, LoraLinear]:
    """The LoRA layers of a model by name."""
    return {name: module for name, module in gpt.named_modules() if isinstance(module, LoraLinear)}


def merge_adapters(gpt: GPT) -> None:
    """Make plain layers of all LoRA layers, in place."""
    for name, layer in adapters(gpt).items():
        parent, _, part = name.rpartition(".")
        setattr(gpt.get_submodule(parent), part, layer.merged())


# ---------------------------------------------------------------- PEFT's format

LLAMA_NAMES = {
    "attention.query": "self_attn.q_proj", "attention.key": "self_attn.k_proj", "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj", "feed_forward.gate": "mlp.gate_proj", "feed_forward.expand": "mlp.up_proj",
    "feed_forward.contract": "mlp.down_proj",
}  # fmt: skip
GPT2_NAMES = {
    "attention.output": "attn.c_proj", "feed_forward.expand": "mlp.c_fc", "feed_forward.contract": "mlp.c_proj"
}  # fmt: skip
TOGETHER = ("attention.query", "attention.key", "attention.value")  # GPT-2's attn.c_attn


def save_adapter(
    folder: Path, gpt: GPT, base: str, head: Tensor | None = None, embedding: Tensor | None = None
) -> None:
    """Write adapter_config.json and adapter_model.safetensors for `peft`, before the adapters are merged.

    A classifier's `head` and an `embedding` that grew go along whole. To open it: resize the base model's embedding to
    the tokenizer first, as `peft` asks for.
    """
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    of_gpt2 = gpt.config.family == "gpt2"
    blocks, names = ("transformer.h", GPT2_NAMES) if of_gpt2 else ("model.layers", LLAMA_NAMES)
    for number, block in enumerate(gpt.blocks):
        found = {name: part for name, part in block.named_modules() if isinstance(part, LoraLinear)}
        layers: dict[str, tuple[Tensor, Tensor, float]] = {
            names[name]: (part.a, part.b, part.alpha) for name, part in found.items() if name in names
        }
        if of_gpt2 and any(name in found for name in TOGETHER):
            layers["attn.c_attn"] = _side_by_side([found.get(name) for name in TOGETHER], gpt.config.d_model)
        for name, (a, b, alpha) in layers.items():
            path = f"{blocks}.{number}.{name}"
            tensors |= {f"base_model.model.{path}.lora_A.weight": a, f"base_model.model.{path}.lora_B.weight": b}
            ranks[path], alphas[path] = len(a), alpha
    if head is not None:
        tensors["base_model.model.score.weight"] = head
    if embedding is not None:
        where = "transformer.wte" if of_gpt2 else "model.embed_tokens"
        tensors[f"base_model.model.{where}.weight"] = embedding
    modules = sorted({path.split(".", 3)[3] for path in ranks})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if head is None else "SEQ_CLS",
        "base_model_name_or_path": base,
        "r": max(ranks.values()),
        "lora_alpha": max(alphas.values()),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": modules,
        "modules_to_save": None if head is None else ["score"],
        "fan_in_fan_out": of_gpt2,  # its layers keep their matrices the other way round
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
    with atomic_file(folder / "adapter_model.safetensors") as temporary:
        contents = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contents, temporary, metadata={"format": "pt"})
    write_json(folder / "adapter_config.json", config)


def _side_by_side(parts: Sequence[LoraLinear | None], width: int) -> tuple[Tensor, Tensor, float]:
    """One adapter for a matrix of three side by side: the As below each other, the Bs as blocks of a diagonal."""
    there = [part for part in parts if part is not None]
    rank = there[0].rank
    a = torch.cat([part.a for part in there])
    rows = []
    for part in parts:
        columns = [torch.zeros(width, rank, device=a.device) for _ in there]
        if part is not None:
            columns[there.index(part)] = part.b.detach()
        rows.append(torch.cat(columns, dim=1))
    return a, torch.cat(rows), there[0].alpha * len(there)
