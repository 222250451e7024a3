"""A model for decoding on a GPU: the readable one on a device, and a cache with a slot for each text.

What `CompiledModel` is on a processor, for the same callers. The next token of each text, or a few of one, is a step of
static shapes that cuda replays as a graph (step.py). Prompts go through the model as they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.compute import keep_freed_memory
from pellucid.config import ModelConfig
from pellucid.generation.compiled.model import check_there, kept_in
from pellucid.generation.compiled.packing import BITS, Dtype
from pellucid.generation.graphed.step import GraphedSlots, Row, said_plainly
from pellucid.model.formats.folder import read_as_kept, read_settings
from pellucid.model.formats.quantised import Quantised
from pellucid.model.gpt import GPT, folder_of
from pellucid.model.outline import Outline
from pellucid.model.positions import RotaryPositions
from pellucid.runtime import ConfigError, inform, problem

# B slots, T tokens, D width of the model, V vocabulary

FEW = 8  # tokens of one text that make a step: the next one, and those that are read ahead (fast.py)
TOGETHER = 1024  # tokens of a prompt that go through the model in one pass
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Precision = Literal["float32", "bfloat16"]


class GraphedModel:
    """Computes what `GPT` does, with `weights` that lie on one device in one precision."""

    def __init__(self, config: ModelConfig, weights: dict[str, Tensor]) -> None:
        with Outline():
            self.model = GPT(config).eval()
        self.model.load_state_dict(weights, assign=True)
        self.config, self.device = config, self.model.device
        self.precision = self.model.token_embedding.weight.dtype
        self.dtype = next(name for name, kind in PRECISIONS.items() if kind == self.precision)
        self.nbytes = sum(weight.nbytes for weight in weights.values())
        self.number_bytes = self.precision.itemsize  # of one in the cache
        positions = self.model.position_embedding
        if isinstance(positions, RotaryPositions):  # a graph cannot fetch them from the processor
            positions.frequencies = positions.frequencies.to(self.device)

    @classmethod
    def of(cls, model: GPT, dtype: Precision = "float32", device: torch.device | str = "cpu") -> GraphedModel:
        """The same model with weights of its own."""
        kind = PRECISIONS[dtype]
        return cls(model.config, {name: one.to(device, kind, copy=True) for name, one in model.state_dict().items()})

    @classmethod
    def load(
        cls, where: str | Path, dtype: Dtype | Literal["auto"] = "auto", device: torch.device | str = "cuda"
    ) -> GraphedModel:
        """A run folder or a model of the hub. `auto` keeps the folder's precision; a quantised one becomes float32.

        Each matrix goes to the device as it is read. ConfigError for a precision that is the processor's alone,
        DataError for what is wrong with a folder, PellucidError where the device has no room.
        """
        device = torch.device(device)
        check_precision(dtype, device)
        folder = folder_of(where)
        read_settings(folder)  # a folder that is none is said to be none
        taken = kept_in(folder) if dtype == "auto" else dtype
        if taken in BITS:
            inform(f"{folder}: {taken} becomes float32 on {device.type}; --dtype bfloat16 takes half the memory")
        kind = PRECISIONS.get(taken, torch.float32)
        with said_plainly(device):
            config, found, _ = read_as_kept(folder, lambda _, weight: weight.to(device, kind))
            found.pop("head", None)
            plain = {name: one.plain() if isinstance(one, Quantised) else one for name, one in found.items()}
            model = cls(config, {name: one.to(device, kind) for name, one in plain.items()})
        model.get_ready()
        return model

    def get_ready(self) -> None:
        """Have libraries loaded and a step captured, or said why not, before the first token is waited for.

        Tokens are drawn on the processor: freed memory is kept there, as `CompiledModel.get_ready` has it.
        """
        keep_freed_memory()
        self.logits(self.slots(1), [0], [0], [0])

    def parameter_count(self) -> int:
        """Trained numbers."""
        return self.model.parameter_count()

    def slots(self, count: int, alike: bool = False) -> GraphedSlots:
        """Room for `count` texts. `alike` or not, how a prompt is cut moves its numbers by rounding alone."""
        return GraphedSlots(self.config, count, self.precision, self.device)

    @torch.inference_mode()
    def logits(
        self,
        slots: GraphedSlots,
        ids: Sequence[int],
        which: Sequence[int],
        places: Sequence[int],
        wanted: Sequence[int] | None = None,
    ) -> NDArray[np.float32]:
        """Read `ids`, each at a place of one of the slots; the logits after the rows `wanted` (the last): (rows, V).

        As `CompiledModel.logits` has it: the tokens of one text stand side by side and in order, what is before them in
        its slot was read, and the wanted rows are in order. IndexError for a token, a slot or a place that there is
        not, before the device hears of any. PellucidError where it has no room.
        """
        wanted = [len(ids) - 1] if wanted is None else wanted
        check_there(self.config, slots.count, ids, which, places)
        begins = [row for row in range(len(ids)) if row == 0 or which[row] != which[row - 1]]
        texts = list(zip(begins, [*begins[1:], len(ids)], strict=True))
        longest = max(end - begin for begin, end in texts)
        with said_plainly(self.device):
            slots.make_room(max(places) + 1, self.config.context_length)
            if longest == 1 or (longest <= FEW and slots.count == 1):
                width = 1 if longest == 1 else FEW
                found = self._step(slots, texts, width, ids, which, places, wanted)
            else:
                found = self._read(slots, texts, ids, which, places, wanted)
            logits: NDArray[np.float32] = found.cpu().numpy()
        return logits

    def _step(
        self,
        slots: GraphedSlots,
        texts: Sequence[tuple[int, int]],
        width: int,
        ids: Sequence[int],
        which: Sequence[int],
        places: Sequence[int],
        wanted: Sequence[int],
    ) -> Tensor:
        """All texts at once, `width` tokens of each: of one that has fewer, the last again, which writes the same."""
        given = [[[0] * width for _ in range(slots.count)] for _ in range(3)]
        for begin, end in texts:
            rows = [min(row, end - 1) for row in range(begin, begin + width)]
            for part, numbers in zip(given, (ids, places, [1] * len(ids)), strict=True):
                part[which[begin]] = [numbers[row] for row in rows]
        first = {which[begin]: begin for begin, _ in texts}
        logits = slots.step(width).run(self.model, given)  # (B, T, V)
        return logits[[which[row] for row in wanted], [row - first[which[row]] for row in wanted]]

    def _read(
        self,
        slots: GraphedSlots,
        texts: Sequence[tuple[int, int]],
        ids: Sequence[int],
        which: Sequence[int],
        places: Sequence[int],
        wanted: Sequence[int],
    ) -> Tensor:
        """One text after the other, by the model as it stands."""
        found = []
        for begin, end in texts:
            cache = Row(slots, which[begin], places[begin])
            for start in range(begin, end, TOGETHER):
                part = list(ids[start : min(start + TOGETHER, end)])
                hidden = self.model.hidden(torch.tensor([part], device=self.device), cache)[0]  # (T, D)
                asked = [row - start for row in wanted if start <= row < start + len(part)]
                found.append(self.model.logits(hidden[torch.tensor(asked, dtype=torch.long)]).float())
        return torch.cat(found)


def check_precision(dtype: str, device: torch.device) -> None:
    """ConfigError for a precision that is the processor's alone."""
    if dtype in BITS:
        expected, advice = "auto, float32 or bfloat16", "--device cpu decodes in so few bits."
        raise ConfigError(problem("--dtype", f"{dtype} on {device.type}", expected, advice))
