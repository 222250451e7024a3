"""What the ways to finetune take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from pellucid.options.base import RunFolder
from pellucid.options.fitting import Fitting, WrittenRun


@dataclass(frozen=True, kw_only=True)
class Finetuning(Fitting, WrittenRun):
    """What the ways to finetune have in common."""

    run: RunFolder
    """Run folder of a pretrained model."""
    batch_size: int = 32
    """Examples of one optimizer step."""
    epochs: float = 3.0
    """Passes over the training split."""
    train: str = "all"
    """What is trained: all, last-K (the last K blocks), head, or lora (small matrices beside frozen ones)."""
    lora_rank: int = 8
    """Rank of LoRA's matrices."""
    lora_alpha: float = 16.0
    """What LoRA's part counts: alpha / rank."""
    lora_targets: Annotated[tuple[str, ...], arg(metavar="NAME…")] = ()
    """Layers of each block that get LoRA's matrices, such as attention.query attention.value; without it, all."""
    base: Literal["float32", "int8"] = "float32"
    """Precision of the frozen matrices beside LoRA's; int8 takes a quarter of the memory."""


@dataclass(frozen=True, kw_only=True)
class FinetuneClassify(Finetuning):
    """Finetune a model to tell classes of text apart."""

    data: Path
    """csv, tsv, jsonl or json with a text and a label, or a folder with a folder of .txt files for each class."""
    val: Path | None = None
    """Labelled texts for validation; without it, a tenth of the data."""
    test: Path | None = None
    """Labelled texts for the test; without it, a fifth of the data."""
    text_column: str = ""
    """Name of the column with the texts; found by looking where it is not given."""
    label_column: str = ""
    """Name of the column with the labels."""
    multi_label: bool = False
    """A text may have several labels or none: written a|b, or as a list in jsonl and json."""
    class_weight: Literal["none", "balanced", "sampler"] = "none"
    """For rare classes: balanced weighs their loss, sampler draws them more often."""
    cut: Literal["end", "start", "middle"] = "end"
    """What is left out of a text that is longer than the context."""
    teacher: Literal["linear", "none"] = "linear"
    """linear: learn also what a linear model on words and characters says, of texts made up of these, too."""
    epochs: float = 4.0
    """Passes over the training split; with a teacher each has three made-up texts for two of its own."""


@dataclass(frozen=True, kw_only=True)
class FinetuneInstruct(Finetuning):
    """Finetune a model to follow instructions."""

    data: Path
    """json, jsonl, csv or tsv: Alpaca, question and answer, ShareGPT, messages, or prompt and completion."""
    merge: bool = True
    """Make LoRA's matrices part of the written model; --no-merge writes the adapter alone, to be merged by import."""
    packing: bool = False
    """Several conversations in a row, none seeing another: the same loss; faster where their lengths differ much."""


@dataclass(frozen=True, kw_only=True)
class FinetunePrefer(Finetuning):
    """Teach an assistant which of two answers is the better one (DPO)."""

    data: Path
    """json, jsonl, csv or tsv with chosen and rejected answers to a prompt, an instruction, or a talk so far."""
    beta: float = 0.1
    """How strongly the model is held to what it was: larger, and it moves less."""
    epochs: float = 1.0
    merge: bool = True
    """Make LoRA's matrices part of the written model; --no-merge writes the adapter alone, to be merged by import."""
