"""One token, or a few, of each text, by static shapes: what CUDA can capture once as a graph and replay with one call.

A GPU has done a step of a small model before Python has asked it for the next: asking for each of its kernels is what
takes the time. A graph is asked for as a whole, but repeats exactly what was captured, on the same memory. So a step
takes ids and places from one tensor, looks at all columns of the cache under a mask, and leaves its logits in another.
On other devices the same step runs without a capture: so the tests see all of this but the capture on a processor.
Page: Nguyen et al. 2021, "Accelerating PyTorch with CUDA Graphs", PyTorch's blog.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from pellucid.compute import is_out_of_memory
from pellucid.config import ModelConfig
from pellucid.model.cache import KVCache
from pellucid.model.gpt import GPT
from pellucid.runtime import PellucidError, problem, shown

# B slots, T tokens of each, S columns of the cache, G heads of keys and values, K width of a head, V vocabulary

LEAST = 256  # columns that a slot begins with: after each doubling a step is captured anew
WARM = 3  # passes before a capture, in which libraries choose their kernels and take their room
CAPTURING = threading.Lock()  # a capture begins by waiting for the whole GPU, which no other capture survives


class GraphedSlots(KVCache):
    """Keys and values of `count` texts, flush left. All grow together, from nothing, up to the model's window."""

    def __init__(self, config: ModelConfig, count: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(config, count, 0, None, dtype, device)
        self.count = count
        self.looks_ahead = count == 1  # of several, a few tokens of one are a pass without a graph
        self._steps: dict[int, Step] = {}  # by the tokens that each slot gets

    def make_room(self, total: int, most: int) -> None:
        """Room for `total` tokens in each slot; what was captured knows the old memory alone, and goes with it."""
        if total > self.length:
            self._steps = {}
        super().make_room(max(total, min(LEAST, most)), most)

    def step(self, width: int) -> Step:
        """The pass that gives each slot `width` tokens."""
        if width not in self._steps:
            self._steps[width] = Step(self, width)
        return self._steps[width]

    @torch.inference_mode()
    def copy(self, source: int, target: int, tokens: int) -> None:
        """Let `target` begin with the first `tokens` of `source`."""
        if source != target:
            for part in (self.keys, self.values):
                part[:, target, :, :tokens] = part[:, source, :, :tokens]


class Row(KVCache):
    """One slot, of which the first `used` columns count, as the model knows its cache: the same memory."""

    def __init__(self, slots: GraphedSlots, slot: int, used: int) -> None:
        self.keys, self.values = slots.keys[:, slot : slot + 1], slots.values[:, slot : slot + 1]
        self.padding, self.used = None, used


class Step(KVCache):
    """The cache of a pass that gives each slot T tokens: always the same memory and the same shapes.

    given: (3, B, T), the ids, their places, and 1 where they count; a slot without any writes back what it held.
    """

    def __init__(self, slots: GraphedSlots, width: int) -> None:
        self.keys, self.values = slots.keys, slots.values
        self.given = torch.zeros(3, slots.count, width, dtype=torch.long, device=slots.keys.device)
        self._rows = torch.arange(slots.count, device=slots.keys.device)[:, None]
        self._seen = self._counts = self._logits = self.given  # until `compute` makes them
        self._graph: torch.cuda.CUDAGraph | None = None

    def run(self, model: GPT, given: list[list[list[int]]]) -> Tensor:
        """The logits (B, T, V) after what is given. On cuda they lie where those of the next call will."""
        self.given.copy_(torch.tensor(given))
        if self.given.device.type != "cuda":
            self.compute(model)
            return self._logits
        if self._graph is None:
            self._graph = self.capture(model)
        self._graph.replay()
        return self._logits

    def compute(self, model: GPT) -> None:
        """All that depends on what is given; this is what is captured."""
        columns, places = torch.arange(self.length, device=self.keys.device), self.given[1][:, None, :, None]
        self._seen = columns <= places  # (B, 1, T, S): its own text, up to itself
        if model.config.window:
            self._seen = self._seen & (columns > places - model.config.window)
        self._counts = self.given[2][:, :, None, None] > 0  # (B, T, 1, 1)
        self._logits = model.logits(model.hidden(self.given[0], self)).float()

    def capture(self, model: GPT) -> torch.cuda.CUDAGraph:
        """A graph of `compute`: recorded, not run, in a stream aside that was warmed up."""
        graph = torch.cuda.CUDAGraph()
        with CAPTURING, torch.cuda.device(self.given.device):
            aside = capturing_stream(self.given.device)
            aside.wait_stream(torch.cuda.current_stream())
            try:
                with torch.cuda.stream(aside):
                    for _ in range(WARM):
                        self.compute(model)
            finally:  # also where it breaks off: the slots' memory is not another's before the last kernel is done
                torch.cuda.current_stream().wait_stream(aside)
            try:  # "thread_local": what other threads ask of the GPU meanwhile is no mistake
                with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
                    self.compute(model)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                found = f"a step that it cannot capture ({first_line(error)})"
                advice = "Decode on the processor (--device cpu), or try another version of torch."
                raise PellucidError(problem("--device cuda", found, "a CUDA graph", advice)) from error
        return graph

    def positions(self, new: int) -> Tensor:
        """(B, T)."""
        return self.given[1]

    def mask(self, new: int, window: int = 0) -> Tensor:
        """(B, 1, T, S) booleans: which columns each token may look at."""
        return self._seen

    def store(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the new (B, G, T, K) at their places; all of them, (B, G, S, K)."""
        places = self.given[1]
        for held, new in ((self.keys[layer], keys), (self.values[layer], values)):
            before = held[self._rows, :, places]  # (B, T, G, K)
            held[self._rows, :, places] = torch.where(self._counts, new.transpose(1, 2), before)
        return self.keys[layer], self.values[layer]

    def advance(self, new: int) -> None:
        """Nothing to count: each call says its places."""


@cache
def capturing_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: cuBLAS keeps a room of megabytes for each stream that it has seen."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextmanager
def said_plainly(device: torch.device) -> Iterator[None]:
    """Within the block, what a GPU cannot do is one message that says what to do: no memory, or no kernels for it."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            found, expected = f"no memory left ({first_line(error)})", "room for the weights and texts"
            advice = "Ask for fewer texts at once (--samples, --batch) or --dtype bfloat16, or take --device cpu."
        elif isinstance(error, torch.AcceleratorError):
            found, expected = f"a GPU that this torch cannot use ({first_line(error)})", "one that it can"
            advice = "Take --device cpu, or a version of torch that is made for it."
        else:
            raise
        raise PellucidError(problem(f"--device {device}", found, expected, advice)) from error


def first_line(error: Exception) -> str:
    """The beginning of what torch says; the rest is a screen of hints."""
    return shown(next(iter(str(error).splitlines()), type(error).__name__))
