"""What the runs are (language model, assistant, classifier), and the engine that decodes the texts of each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

from pellucid.assistant.server.engine import WAITING, Engine
from pellucid.finetune.classify import Classifier
from pellucid.finetune.classify_texts import open_classifier
from pellucid.finetune.kind import Kind, kind_of
from pellucid.generation.decoder import Decoder, load_decoder
from pellucid.model.formats.folder import check_fits
from pellucid.opened import Runs
from pellucid.runtime import DataError, problem
from pellucid.text.tokenizer import Tokenizer

T = TypeVar("T")

ADVICE = {
    "language model": "Ask /v1/completions, or make an assistant or a classifier of it with `pellucid finetune`.",
    "assistant": "Ask /v1/chat/completions or /v1/completions.",
    "classifier": "Ask /v1/classify.",
    "in training": "Wait until its training has ended.",
}


class OpenModels:
    """One for a server: made before its event loop, used in it."""

    def __init__(self, runs: Runs, rows: int = 0, waiting: int = WAITING, device: str = "auto") -> None:
        self.runs, self.rows, self.waiting = runs, rows, waiting
        self.load_writer = partial(load_writer, device=device)  # one object, by which the runs know what is loaded
        self.engines: dict[str, Engine] = {}
        self.retired: WeakSet[Engine] = WeakSet()  # each is there until its thread has ended

    def kind(self, name: str) -> Kind:
        """What a run is, by its files. UnknownRunError for a name that is not open, DataError for damaged files."""
        return self.runs.load(name, kind_of)

    async def engine(self, name: str, wanted: tuple[Kind, ...]) -> Engine:
        """The engine of a run of one of these kinds; a new one where a training run has replaced the weights."""
        await self.check(name, wanted)
        model, tokenizer = await self._loaded(name, self.load_writer)  # at once, or one might be replaced meanwhile
        engine = self.engines.get(name)
        if engine is None or engine.model is not model:
            if engine is not None:
                engine.retire()
                self.retired.add(engine)
            engine = self.engines[name] = Engine(model, tokenizer, self.rows, self.waiting)
        return engine

    async def classifier(self, name: str) -> tuple[Classifier, Tokenizer]:
        """A classifier and its tokenizer."""
        await self.check(name, ("classifier",))
        return await self._loaded(name, open_classifier)

    async def check(self, name: str, wanted: tuple[Kind, ...]) -> None:
        """DataError for a run of another kind."""
        kind = await self._loaded(name, kind_of)
        if kind not in wanted:
            raise DataError(problem(f"model {name!r}", kind, " or ".join(wanted), ADVICE[kind]))

    async def _loaded(self, name: str, how: Callable[[Path], T]) -> T:
        there = self.runs.loaded(name, how)
        return there if there is not None else await self.runs.aside(self.runs.load, name, how)

    def close(self) -> None:
        """End all engines."""
        for engine in (*self.retired, *self.engines.values()):
            engine.close()


def load_writer(folder: Path, device: str) -> tuple[Decoder[Any], Tokenizer]:
    """What writes text. DataError where the two do not belong together."""
    model, tokenizer = load_decoder(folder, device=device), Tokenizer.load(folder)
    check_fits(model.config, tokenizer, folder)
    return model, tokenizer


def created(folder: Path) -> int:
    """When a run was last saved, in seconds since 1970."""
    for file in (folder / "config.json", folder):
        with contextlib.suppress(OSError):
            return int(file.stat().st_mtime)
    return 0
