"""What the one training loop takes, whatever the task: said here once, for planning, pretraining and finetuning.

An option is handed to the loop by its name, as the setting of `FitConfig` that is called the same. Where a verb's
default is another one, its own class says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from pellucid.options.base import Options


@dataclass(frozen=True, kw_only=True)
class Fitting(Options):
    """How it is trained."""

    micro_batch_size: int = 0
    """Examples (windows, packed rows) of one pass; 0 is the whole batch at once, on a CPU about a gigabyte of it."""
    lr: float = 0.0
    """Peak learning rate of AdamW (Muon's moves with it); 0 is the recipe's, which falls with the model's width."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """What the rate does after its rise: a plateau and a straight fall to zero, a cosine down to a tenth, nothing."""
    optimizer: Literal["auto", "muon", "adamw", "adafactor"] = "auto"
    """muon (with AdamW for all but matrices), adamw, or adafactor, which takes half the memory; auto is adamw for LoRA
    and preferences, and muon else."""
    recompute: bool = False
    """Gradient checkpointing: keep only what goes into each block; less memory, a third slower."""
    average: float = 0.0
    """Evaluate, and end with, a running average of the weights (EMA) that keeps this share at each step, as 0.999."""
    evaluations: int = 10
    """How many times held-out data is looked at and a sample is taken, the last time at the end; fewer where minutes
    end the run and that would take more than three tenths of them."""
    early_stop: int = 0
    """End after so many evaluations in a row without a lower loss, with the best weights; 0 never does."""
    best: bool = False
    """End with the weights of the evaluation with the lowest loss, not with the last."""
    spikes: bool = False
    """Go back and leave a step out where the loss jumps; a loss that is no number is always left out."""
    seed: int = 0
    """Seed of all that is random: the order of the data, a split of it, new weights, dropout."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the matrix products in training; auto keeps the faster one."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


@dataclass(frozen=True, kw_only=True)
class WrittenRun(Options):
    """What is written while it is trained."""

    out: Path
    """Run folder to write: a Hugging Face model folder."""
    resume: bool = False
    """Go on from the newest checkpoint in --out, or begin where there is none; data and options stay as they were."""
    checkpoint_every: int = 0
    """Optimizer steps between two checkpoints; 0 is one about every 30 seconds. The last step has one, too."""
    keep: int = 2
    """How many checkpoints are kept."""
    log: Annotated[tuple[Literal["tensorboard", "wandb"], ...], arg(metavar="NAME…")] = ()
    """Where metrics go beside metrics.jsonl (pip install 'pellucid[log]'); wandb stays offline by itself."""
