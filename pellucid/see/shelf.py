"""What the workbench takes from the opened runs: models as they are and as they were at checkpoints, and traces.

A checkpoint is looked for among those that lie there now; like a run's name it never becomes a path. A model that is
opened here is no other's: the hooks of a trace would see another's passes, too.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open

from pellucid.config import ModelConfig, from_dict
from pellucid.finetune.classify import Classifier, open_classifier
from pellucid.finetune.kind import Kind, kind_of
from pellucid.model.formats import is_classifier
from pellucid.model.formats.folder import read_config, read_settings
from pellucid.model.gpt import GPT
from pellucid.model.outline import Outline
from pellucid.opened import Runs, file_state, state_of
from pellucid.pretrain.snapshots import snapshots
from pellucid.runtime import DataError, problem, read_json, shown
from pellucid.see.page import room
from pellucid.see.trace import Trace, trace
from pellucid.text.tokenizer import Tokenizer

OPEN = 4  # models held at once
MADE = 8  # traces and maps kept of each: going from page to page computes nothing twice
T = TypeVar("T")


class Kept:
    """What was made last, by key: the oldest goes when there are too many. Threads may share it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._made: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], T]) -> T:
        """What stands under `key`, made now where it is not there."""
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                found: T = self._made[key]
                return found
        made = make()
        with self._lock:
            self._made[key] = made
            while len(self._made) > self._most:
                self._made.popitem(last=False)
        return made


@dataclass(frozen=True, eq=False)
class Opened:
    """A model with its tokenizer; `lock` is held while it computes, as two at once would mix up their values.

    What was `made` of it goes when it goes: neither meets another model, nor keeps this one alive.
    """

    model: GPT
    tokenizer: Tokenizer
    classifier: Classifier | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    made: Kept = field(default_factory=lambda: Kept(MADE))


class Shelf:
    """What stands behind the names of the opened runs: models, their checkpoints, traces."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._opened = Kept(OPEN)
        self.made = Kept(64)  # whatever else is worth keeping

    def folder(self, name: str) -> Path:
        """The folder of an opened run. UnknownRun for any other name."""
        return self.runs.folder(name)

    def kind(self, name: str) -> Kind:
        """What the model was made for, by its files."""
        return self.runs.load(name, kind_of)

    def checkpoints(self, name: str) -> list[dict[str, Any]]:
        """Weights out of the run's training, oldest first, each with its step and its name."""
        return [
            {"name": name, "step": int(name.removeprefix("step-"))} for name in weights_over_time(self.folder(name))
        ]

    def open(self, name: str, checkpoint: str = "") -> Opened:
        """The model of a run as it was at a checkpoint, or as it is: before its training ends, its newest one."""
        folder = self.folder(name)
        if not checkpoint and not (folder / "config.json").is_file():
            checkpoint = next(reversed(weights_over_time(folder)), "")
        file = None
        if checkpoint:
            kept = weights_over_time(folder)
            if checkpoint not in kept:
                known = ", ".join(kept) or "none"
                found = f"the checkpoint {shown(repr(checkpoint))}"
                raise DataError(problem(name, found, f"one of these: {known}", "Choose another."))
            file = kept[checkpoint]
        key = (name, tuple(state_of(folder)), file, file and file_state(file))
        return self._opened.get(key, lambda: read_checkpoint(folder, file) if file else read_run(folder))

    def trace(
        self,
        name: str,
        checkpoint: str,
        text: str,
        more: Sequence[int] = (),
        without: Sequence[tuple[int, int]] = (),
    ) -> Trace:
        """The trace of a text, kept for the pages that ask next."""
        opened = self.open(name, checkpoint)

        def make() -> Trace:
            with opened.lock:
                most = room(opened.model.config)
                return trace(opened.model, opened.tokenizer, text, most, more=more, without=without)

        return opened.made.get((text, tuple(more), tuple(sorted(without))), make)


def read_run(folder: Path) -> Opened:
    """The model of a run folder, and its head where it is a classifier."""
    if is_classifier(read_settings(folder)):
        classifier, tokenizer = open_classifier(folder)
        return Opened(classifier.gpt, tokenizer, classifier)
    return Opened(GPT.load(folder), Tokenizer.load(folder))


def read_checkpoint(folder: Path, file: Path) -> Opened:
    """The model as the weights in `file` had it; of a classifier without what was chosen after the training."""
    try:
        with safe_open(file, "pt") as stored:
            weights = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(problem(file, f"a damaged file ({shown(error)})", "safetensors", "Choose another.")) from error
    head = weights.pop("head.weight", None)
    weights = {name.removeprefix("gpt."): tensor for name, tensor in weights.items()}
    with Outline():
        model = GPT(shape_of(folder))
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        found = "weights of another form (LoRA's, or of another model)"
        raise DataError(problem(file, found, "those of this model", "Choose another.")) from error
    classifier = None
    if head is not None and (folder / "config.json").is_file():
        finished = Classifier.load(folder)
        classifier = Classifier(model.eval(), finished.labels, finished.rule)
        classifier.head.weight.data = head / finished.rule.temperature
        classifier.eval()
    return Opened(model.eval(), Tokenizer.load(folder), classifier)


def weights_over_time(folder: Path) -> dict[str, Path]:
    """The weights that a run's training left: of its snapshots and of its checkpoints, by name, oldest first."""
    found = {file.parent.name: file for file in (folder / "training").glob("step-*/model.safetensors")}
    checkpoints = {name: file for name, file in found.items() if name.removeprefix("step-").isdecimal()}
    return dict(sorted((checkpoints | snapshots(folder)).items()))


def shape_of(folder: Path) -> ModelConfig:
    """The shape of a run's model: of config.json, or while it is still in the making of run.json."""
    if not (folder / "config.json").is_file() and (folder / "run.json").is_file():
        record = read_json(folder / "run.json")
        shape = record.get("config", {}).get("model") if isinstance(record, dict) else None
        if isinstance(shape, dict):
            given = {name: value for name, value in shape.items() if value is not None}
            return from_dict(ModelConfig, given, str(folder / "run.json"))
    return read_config(read_settings(folder), folder / "config.json")[1]
