"""Did I get the right loss? Curves of presets trained by one recipe, several seeds each, to lay under runs of it.

A reference belongs to a run of the same preset, text and recipe only: with other batches, rates or lengths other losses
are right. `benchmarks/reference.py` makes them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pellucid.pretrain.metrics import read_lines
from pellucid.runtime import PellucidError, read_json

DECIDING = (
    "corpus", "model", "steps", "batch_size", "context", "stride",
    "lr", "matrix_lr", "optimizer", "weight_decay", "schedule", "warmup_share", "decay_share", "clip", "average",
)  # fmt: skip


@dataclass(frozen=True)
class Band:
    """Where held-out losses are expected: from `low` to `high` at so many tokens."""

    name: str
    tokens: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Reference:
    """A band, the command that gives such a run, and how many of the run's evaluations lie in the band."""

    band: Band
    command: str
    seeds: int
    within: int
    evaluations: int


def recipe_of(folder: Path) -> dict[str, Any] | None:
    """What decides which losses are right, out of run.json; None for a folder that does not say."""
    try:
        config = read_json(folder / "run.json")["config"]
        return {key: config[key] for key in DECIDING}
    except (PellucidError, KeyError, TypeError):
        return None


def reference_of(folder: Path) -> Reference | None:
    """The reference of the run in a folder; None where there is none for its recipe."""
    recipe = recipe_of(folder)
    if recipe is None:
        return None
    known: dict[str, Any] = json.loads(files("pellucid.see").joinpath("references.json").read_text(encoding="utf-8"))
    for preset, found in known.items():
        if recipe == found["recipe"]:
            name = f"expected: {preset}, {found['seeds']} seeds"
            band = Band(name, found["tokens"], found["low"], found["high"])
            losses = {
                line["tokens"]: line["loss"] for line in read_lines(folder / "metrics.jsonl") if line["split"] == "val"
            }
            places = zip(band.tokens, band.low, band.high, strict=True)
            inside = [low <= losses[tokens] <= high for tokens, low, high in places if tokens in losses]
            return Reference(band, found["command"], found["seeds"], sum(inside), len(inside))
    return None
