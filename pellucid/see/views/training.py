"""The data of the page Training: what a run has written so far, also while another process trains it."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.pretrain.metrics import read_lines
from pellucid.runtime import PellucidError, read_json
from pellucid.see.references import reference_of
from pellucid.see.shelf import Shelf

COLUMNS = ("step", "tokens", "loss", "lr", "grad_norm", "tokens_per_s")
POINTS = 500  # of a curve, at most: means of neighbours
SAMPLES = 60  # texts, the newest
QUIET = 20.0  # seconds without a line that say nothing yet


def training(shelf: Shelf, name: str, known: str = "") -> dict[str, Any]:
    """The curves and samples of a run; only `version`, where that is the one already `known`.

    A point holds COLUMNS, None for what the run did not write. `quiet` are the seconds since the last line, and
    `patience` those that a run which trains may be quiet.
    """
    folder = shelf.folder(name)
    file = folder / "metrics.jsonl"
    state = file.stat() if file.is_file() else None
    version = f"{state.st_mtime_ns}.{state.st_size}" if state else "none"
    quiet = time.time() - state.st_mtime if state else None
    if version == known:
        return {"name": name, "version": version, "quiet": quiet}
    return {
        "name": name,
        "version": version,
        "quiet": quiet,
        "columns": COLUMNS,
        **shelf.made.get(("metrics", folder), lambda: Followed(file)).curves(),
        "samples": [sample_of(line) for line in read_lines(folder / "samples.jsonl")][-SAMPLES:],
        "command": command(folder),
        "planned": planned(folder),
        "levels": levels(folder),
        "band": band(folder),
    }


class Followed:
    """A metrics.jsonl that grows: each line is read once, however often somebody looks and however long the run is."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._inode, self._end = 0, 0  # of what was read
        self._train = array("d")  # rows of COLUMNS, one after the other
        self._val: list[dict[str, Any]] = []

    def curves(self) -> dict[str, Any]:
        """The points of both splits, those of training thinned, and the newest scores."""
        with self._lock:
            for line in self._news():
                if line.get("split") == "train":
                    self._train.extend(row_of(line))
                elif line.get("split") == "val":
                    self._val.append(line)
            train = np.array(self._train).reshape(-1, len(COLUMNS))
            val = np.array([row_of(line) for line in self._val]).reshape(-1, len(COLUMNS))
            found = {"train": points(thinned(train)), "val": points(val), "scores": scores(self._val)}
            return found | {"patience": patience(train)}

    def _news(self) -> Iterator[dict[str, Any]]:
        """The objects of the lines that were written whole since the last look: all, where it is another file now."""
        try:
            with self._file.open("rb") as file:
                state = os.fstat(file.fileno())
                if state.st_ino != self._inode or state.st_size < self._end:  # a run that goes on writes another file
                    self._forget()
                self._inode = state.st_ino
                file.seek(self._end)
                written = file.read()
        except OSError:  # it has gone
            return self._forget()
        whole = written[: written.rfind(b"\n") + 1]
        self._end += len(whole)
        for line in whole.splitlines():
            try:
                found = json.loads(line)
            except ValueError:  # cut short by a crash
                continue
            if isinstance(found, dict):
                yield found


def patience(rows: np.ndarray) -> float:
    """Seconds until the next line at the latest: several times what the last step took, and time for an evaluation."""
    if len(rows) < 2:
        return QUIET
    (before, last), tokens, speed = rows[-2:], COLUMNS.index("tokens"), COLUMNS.index("tokens_per_s")
    seconds = (last[tokens] - before[tokens]) / last[speed] if last[speed] > 0 else 0.0
    return QUIET + 3 * max(0.0, float(np.nan_to_num(seconds)))


def row_of(line: dict[str, Any]) -> list[float]:
    """A line of metrics as a row of COLUMNS; NaN for what is not there."""
    values: list[Any] = [line.get(name) for name in COLUMNS]
    return [float(value) if _is_number(value) else math.nan for value in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def thinned(rows: np.ndarray) -> np.ndarray:
    """At most about POINTS rows: the means of neighbours (of what is there), at the place of the last of them."""
    size = -(-len(rows) // POINTS) or 1
    if size == 1:
        return rows
    starts = np.arange(0, len(rows), size)
    there = np.add.reduceat(~np.isnan(rows), starts, dtype=np.int64)
    with np.errstate(invalid="ignore"):  # nothing there: 0 / 0 is NaN again
        means = np.add.reduceat(np.nan_to_num(rows), starts) / there
    means[:, :2] = rows[[*(starts[1:] - 1), len(rows) - 1], :2]
    return means


def points(rows: np.ndarray) -> list[list[float | None]]:
    """Rows as JSON has them."""
    return [[None if math.isnan(value) else value for value in row] for row in rows.tolist()]


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
