"""Which optimizer moves which parameters, and how fast at each step.

Muon turns each matrix's step into the nearest orthogonal one, which learns more from each token than AdamW does
(docs/performance.md); embeddings, biases and norms stay with AdamW. Page: Jordan et al. 2024, "Muon: an optimizer for
hidden layers in neural networks"; scaled as in Liu et al. 2025, "Muon is Scalable for LLM Training".

Adafactor is for a model whose training hardly fits: where AdamW keeps two numbers for each weight, it keeps one for
each row and column.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from pellucid.config import FitConfig
from pellucid.pretrain.adafactor import Adafactor
from pellucid.pretrain.muon import Muon

BETAS = (0.9, 0.99)


def make_optimizers(model: nn.Module, config: FitConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, or Adafactor for all matrices, and AdamW for the rest; or it for all."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = [parameter for name, parameter in named if parameter.dim() == 2 and "blocks." in name]
    embeddings = [parameter for name, parameter in named if parameter.dim() == 2 and "blocks." not in name]
    vectors = [parameter for _, parameter in named if parameter.dim() != 2]
    tables, decay = matrices + embeddings, config.weight_decay
    special: list[torch.optim.Optimizer] = []
    if config.optimizer == "muon" and matrices:
        dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
        special, rest = [Muon(matrices, config.matrix_lr, decay, dtype=dtype)], [(embeddings, 0.0)]
    elif config.optimizer == "adafactor" and tables:
        special, rest = [Adafactor(tables, config.lr, decay)], []
    else:
        rest = [(tables, decay)]
    groups = [{"params": some, "weight_decay": decay} for some, decay in [*rest, (vectors, 0.0)] if some]
    return ([torch.optim.AdamW(groups, lr=config.lr, betas=BETAS, fused=True)] if groups else []) + special


def numbers_kept(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> int:
    """How many numbers an optimizer keeps for a parameter."""
    if isinstance(optimizer, Adafactor):
        return sum(parameter.shape)
    return parameter.numel() * (2 if isinstance(optimizer, torch.optim.AdamW) else 1)


def rate_scale(share: float, config: FitConfig) -> float:
    """Share of the peak learning rate when `share` of the run is done: a straight rise, then what the schedule says.

    linear: a plateau, then a straight fall to zero in the last `decay_share`; cosine: half a cosine down to a tenth;
    constant: no fall. Pages: Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed Training
    Durations" (linear); Brown et al. 2020, "Language Models are Few-Shot Learners", appendix B (cosine).
    """
    rise = min((share + 1e-3) / max(config.warmup_share, 1e-3), 1.0)
    if config.schedule == "constant":
        return rise
    if config.schedule == "cosine":
        done = (share - config.warmup_share) / max(1 - config.warmup_share, 1e-3)
        return rise * (0.1 + 0.45 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0))))
    fall = (1 - share) / max(config.decay_share, 1e-3)
    return max(0.0, min(rise, fall))


def set_rate(optimizers: list[torch.optim.Optimizer], scale: float) -> None:
    """Set each group's rate to `scale` × its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("peak_lr", group["lr"])
            group["lr"] = group["peak_lr"] * scale
