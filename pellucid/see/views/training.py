"""The data of the page Training: what a run has written so far, also while another process trains it."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from pellucid.pretrain.metrics import read_lines
from pellucid.runtime import PellucidError, read_json
from pellucid.see.references import reference_of

COLUMNS = ("step", "tokens", "loss", "lr", "grad_norm", "tokens_per_s")
POINTS = 500  # of a curve, at most: means of neighbours
SAMPLES = 60  # texts, the newest


def training(folder: Path, name: str, known: str = "") -> dict[str, Any]:
    """The curves and samples of a run; only `version`, where that is the one already `known`.

    A point holds COLUMNS, None for what the run did not write. `quiet` are the seconds since the last line.
    """
    file = folder / "metrics.jsonl"
    state = file.stat() if file.is_file() else None
    version = f"{state.st_mtime_ns}.{state.st_size}" if state else "none"
    quiet = time.time() - state.st_mtime if state else None
    if version == known:
        return {"name": name, "version": version, "quiet": quiet}
    lines = read_lines(file)
    return {
        "name": name,
        "version": version,
        "quiet": quiet,
        "columns": COLUMNS,
        "train": thinned([row_of(line) for line in lines if line.get("split") == "train"]),
        "val": [row_of(line) for line in lines if line.get("split") == "val"],
        "scores": scores([line for line in lines if line.get("split") == "val"]),
        "samples": [sample_of(line) for line in read_lines(folder / "samples.jsonl")][-SAMPLES:],
        "command": command(folder),
        "planned": planned(folder),
        "levels": levels(folder),
        "band": band(folder),
    }


def row_of(line: dict[str, Any]) -> list[float | None]:
    """A line of metrics as a row of COLUMNS."""
    values: list[Any] = [line.get(name) for name in COLUMNS]
    return [float(value) if _is_number(value) else None for value in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def thinned(rows: list[list[float | None]]) -> list[list[float | None]]:
    """At most about POINTS rows: the means of neighbours, at the place of the last of them."""
    size = -(-len(rows) // POINTS) or 1
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [[*part[-1][:2], *(mean([row[i] for row in part]) for i in range(2, len(COLUMNS)))] for part in parts]


def mean(values: list[float | None]) -> float | None:
    """Of those that are there."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def sample_of(line: dict[str, Any]) -> dict[str, Any]:
    """A text that the run wrote, its step and the loss at that time."""
    loss = line.get("loss")
    return {"step": line.get("step"), "loss": loss if _is_number(loss) else None, "text": str(line.get("text", ""))}


def scores(lines: list[dict[str, Any]]) -> dict[str, float]:
    """What else the last evaluation measured (accuracy, bits per byte …)."""
    last = lines[-1] if lines else {}
    return {name: value for name, value in last.items() if name not in ("step", "tokens") and _is_number(value)}


def command(folder: Path) -> str:
    """The command line of the run."""
    found = _optional(folder / "run.json").get("command", "")
    return " ".join(map(str, found)) if isinstance(found, list) else str(found)


def planned(folder: Path) -> float | None:
    """How many steps the run is to have; None where the clock decides."""
    config = _optional(folder / "run.json").get("config")
    steps = config.get("steps") if isinstance(config, dict) else None
    return steps if _is_number(steps) and steps else None


def levels(folder: Path) -> list[dict[str, Any]]:
    """What a pretraining loss is compared with, where the run's quickstart measured it."""
    found = _optional(folder / "results" / "evaluate.json")
    ngram = found.get("ngram")
    named = [
        (f"{found.get('ngram_order', '')}-gram model", ngram.get("loss") if isinstance(ngram, dict) else None),
        ("floor: the text’s own entropy", found.get("floor_loss")),
    ]
    return [{"name": name, "loss": loss} for name, loss in named if _is_number(loss)]


def band(folder: Path) -> dict[str, Any] | None:
    """The losses that a run of this recipe should have, where they are known: rows of tokens, lowest, highest."""
    found = reference_of(folder)
    if found is None:
        return None
    rows = zip(found.band.tokens, found.band.low, found.band.high, strict=True)
    name = f"{found.band.name} ({found.within} of {found.evaluations} evaluations lie in it)"
    return {"name": name, "points": [list(row) for row in rows]}


def _optional(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path) if path.is_file() else {}
    except (PellucidError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
