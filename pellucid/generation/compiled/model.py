"""A model for decoding on a CPU: packed weights, the threads that read them, and a cache with a slot for each text."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.compiled.team import Team
from pellucid.compute import keep_freed_memory, settle_threads
from pellucid.config import ModelConfig
from pellucid.generation.compiled.attention import PLACES
from pellucid.generation.compiled.floats import ROWS
from pellucid.generation.compiled.nibbles import SIDE
from pellucid.generation.compiled.packing import BITS, Dtype, numbers_of, pack, zeros
from pellucid.generation.compiled.passes import Cache, Room, forward
from pellucid.generation.compiled.stretches import LONG, Stretches
from pellucid.generation.compiled.tiled import AT_ONCE, tiles_wanted
from pellucid.generation.compiled.tiles import TILES_FIT, bytes_are_fastest
from pellucid.generation.compiled.twelves import PART
from pellucid.model.formats.folder import find_tensors, is_quantised, read_in_pieces, read_settings
from pellucid.model.formats.quantised import GROUP, QUANTISED
from pellucid.model.formats.tensor_files import Piece, read_header
from pellucid.model.gpt import GPT, folder_of
from pellucid.model.positions import rotary_frequencies
from pellucid.model.precision import fastest_precision
from pellucid.runtime import ConfigError, inform, problem

# S places of a slot, V vocabulary

TOGETHER = 256  # tokens that go through the model in one pass
LEAST = 64  # places that a slot begins with
COMPILING = 3.0  # seconds after which it is said what takes so long
MOST_THREADS = 256  # that wait for each other after every step
ALONE = 8 << 20  # bytes of weights up to which one thread is faster than several that wait for each other


class CompiledModel:
    """Computes what `GPT` does, from its weights, which come in pieces and are kept in `dtype`."""

    def __init__(
        self, config: ModelConfig, pieces: Iterable[Piece], dtype: Dtype = "float32", threads: int = 0
    ) -> None:
        self.config, self.dtype = config, dtype
        check_threads(threads)
        self.packed = pack(config, pieces, dtype)
        self.nbytes = self.packed.nbytes
        self.number_bytes = 2 if dtype in BITS else 4  # of one in the cache
        threads = threads or (settle_threads() if self.nbytes > ALONE else 1)
        self.team = Team(threads)
        self._turn = threading.Lock()  # one room and one team: whoever calls meanwhile waits
        self._room: Room | None = None
        self._rows = 0  # tokens for which it has room
        self._passes_are_fastest = dtype in BITS and bytes_are_fastest()  # also for long prompts
        self._stretches: Stretches | None = None

    @classmethod
    def of(cls, model: GPT, dtype: Dtype = "float32", threads: int = 0) -> CompiledModel:
        """The same model with weights of its own."""
        pieces = (Piece(name, 0, weight) for name, weight in model.state_dict().items())
        return cls(model.config, pieces, dtype, threads)

    @classmethod
    def load(cls, where: str | Path, dtype: Dtype | Literal["auto"] = "auto", threads: int = 0) -> CompiledModel:
        """A run folder, quantised or not, or a model of the hub. `auto` keeps the precision that the folder has.

        Each piece is brought into its precision as it is read, so that little more memory is taken than it needs then.
        DataError says what is wrong with a folder.
        """
        folder = folder_of(where)
        read_settings(folder)  # a folder that is none is said to be none
        kept = kept_in(folder)
        taken: Dtype = kept if dtype == "auto" else dtype
        if taken in BITS and kept in BITS and taken != kept:
            inform(f"{folder}: {kept} is rounded a second time, to {taken}; --dtype auto takes it as it is")
        config, pieces = read_in_pieces(folder)
        model = cls(config, pieces, taken, threads)
        model.get_ready()
        return model

    def get_ready(self) -> None:
        """Have the pass compiled, or read from the disk, before the first token is waited for.

        From then on freed memory is kept: to ask the system anew for each token's probabilities took most of a draw.
        """
        keep_freed_memory()
        said = threading.Timer(COMPILING, inform, [f"compiling the pass in {self.dtype}: once on this machine"])
        said.daemon = True
        said.start()
        try:
            self.logits(self.slots(1), [0], [0], [0])
        finally:
            said.cancel()

    def parameter_count(self) -> int:
        """Trained numbers, as `GPT` counts them."""
        return numbers_of(self.config)

    def slots(self, count: int, alike: bool = False) -> Slots:
        """Room for `count` texts. `alike`: their numbers must not depend on how a prompt is cut into calls.

        The compiled pass rounds what it multiplies bytes with; the readable model, to which long parts go, does not,
        and tiles sum up in an order of their own.
        """
        slots = Slots(self.config, count, np.uint16 if self.number_bytes == 2 else np.float32)
        slots.alike = alike
        slots.stretches = not (self._passes_are_fastest or (alike and self.dtype in BITS))
        return slots

    def logits(
        self,
        slots: Slots,
        ids: Sequence[int],
        which: Sequence[int],
        places: Sequence[int],
        wanted: Sequence[int] | None = None,
    ) -> NDArray[np.float32]:
        """Read `ids`, each at a place of one of the slots; the logits after the rows `wanted` (the last): (rows, V).

        The tokens of one text stand side by side and in order, and what is before them in its slot was read. The rows
        that are wanted are in order, too. IndexError for a token, a slot or a place that there is not: nothing compiled
        looks.
        """
        wanted = [len(ids) - 1] if wanted is None else wanted
        check_there(self.config, slots.count, ids, which, places)
        vocabulary = self.config.vocab_size
        out = np.empty((len(wanted), -(-vocabulary // SIDE) * SIDE), np.float32)
        with self._turn:
            slots.grow(max(places) + 1)
            if len(ids) > LONG and slots.stretches:
                ids, which, places, wanted = self._after_stretches(slots, ids, which, places, wanted)
            room = self._room_for(slots, min(len(ids), TOGETHER))
            read = [np.array(one, np.int64) for one in (ids, which, places)]
            read += [np.zeros(len(ids), np.int64) if slots.alike else in_long_parts(read[1])]
            done = 0
            for start in range(0, len(ids), TOGETHER):
                part = slice(start, start + TOGETHER)
                asked = np.array([row - start for row in wanted if start <= row < start + TOGETHER], np.int64)
                rows = out[done : done + len(asked)]
                done += len(asked)
                self.team.run(forward, *(one[part] for one in read), asked, rows, *self.packed, slots.cache, room)
        return out[:, :vocabulary]

    def _after_stretches(
        self, slots: Slots, ids: Sequence[int], which: Sequence[int], places: Sequence[int], wanted: Sequence[int]
    ) -> tuple[list[int], ...]:
        """Read the beginnings that are long, up to where logits are wanted; what is left for the compiled pass."""
        left: list[int] = []
        begins = [row for row in range(len(ids)) if row == 0 or which[row] != which[row - 1]]
        for begin, stop in zip(begins, [*begins[1:], len(ids)], strict=True):
            end = min((row for row in wanted if begin <= row < stop), default=stop)
            if end - begin >= LONG:
                if self._stretches is None:
                    products = torch.float32 if self.dtype == "float32" else fastest_precision()
                    self._stretches = Stretches(self.config, self.packed, products, self.team.threads)
                self._stretches.read(ids[begin:end], slots.cache, which[begin], places[begin])
                begin = end
            left += range(begin, stop)
        again = {row: i for i, row in enumerate(left)}
        return ([ids[row] for row in left], [which[row] for row in left], [places[row] for row in left],
                [again[row] for row in wanted])  # fmt: skip

    def _room_for(self, slots: Slots, rows: int) -> Room:
        keys = slots.cache.keys
        room, length = self._room, keys.shape[3]
        threads = self.team.threads
        if room is None or rows > self._rows or len(room.scores) < threads * AT_ONCE * length:
            self._rows = rows = max(rows, self._rows)
            sizes, matrices = self.packed.sizes, self.packed.matrices
            widths = [matrix[2] for matrix in matrices]
            heads = -(-(sizes.heads + 2 * sizes.kv_heads) * sizes.d_head // SIDE) * SIDE
            wide = max(matrices.contract[2], -(-sizes.d_ff // SIDE) * SIDE)
            shapes = {
                "x": matrices.attention[2],
                "normed": matrices.attention[2],
                "heads": heads,
                "queries": sizes.heads * keys.shape[4],
                "context": matrices.output[2],
                "wide": wide,
                "gate": wide if sizes.gated else 0,
            }
            floats = [zeros((rows * width,), np.float32) for width in shapes.values()]
            bytes_ = max(widths) if self.dtype in BITS else 0
            whole = threads * ROWS * PART if matrices.expand[0].dtype == np.uint32 else 0
            halves, paired = tiles_wanted(length, keys.shape[4]) if TILES_FIT and self.number_bytes == 2 else (0, 0)
            self._room = room = Room(
                *floats,
                zeros((rows * bytes_,), np.int8),
                zeros((max(rows * bytes_ // GROUP, whole),), np.float32),
                zeros((rows * bytes_ // GROUP,), np.int32),
                zeros((threads * AT_ONCE * length,), np.float32),
                zeros((threads * AT_ONCE * keys.shape[4],), np.float32),
                zeros((threads * halves,), np.uint16),
                zeros((threads * paired,), np.int32),
            )
        return room


class Slots:
    """Keys and values of texts, flush left. All slots grow together, doubling, up to the model's window."""

    looks_ahead = True  # a few tokens of one text wait for the same weights as one
    alike = False  # whether all parts of a prompt are read in one way
    stretches = True  # whether long parts of a prompt may be read by the readable model

    def __init__(self, config: ModelConfig, count: int, dtype: type[np.float32] | type[np.uint16]) -> None:
        self.config, self.count, self.dtype = config, count, dtype
        self.cache = self._of(min(LEAST, config.context_length))

    def _of(self, length: int) -> Cache:
        config, length = self.config, -(-length // PLACES) * PLACES
        shape = (config.n_layers, self.count, config.n_kv_heads, length, -(-config.d_head // PLACES) * PLACES)
        angles = np.zeros((length, 0), np.float32)
        if config.positions == "rotary":
            frequencies = rotary_frequencies(config.d_head, config.rope_theta, config.rope_scaling)
            angles = (torch.arange(length)[:, None].float() * frequencies).numpy()
        return Cache(zeros(shape, self.dtype), zeros(shape, self.dtype), np.cos(angles), np.sin(angles))

    def grow(self, length: int) -> None:
        """Room for `length` tokens in each slot, at least."""
        old = self.cache.keys.shape[3]
        if length > old:
            cache = self._of(max(length, min(2 * old, self.config.context_length)))
            cache.keys[:, :, :, :old] = self.cache.keys
            cache.values[:, :, :, :old] = self.cache.values
            self.cache = cache

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Let `target` begin with the first `tokens` of `source`."""
        if source != target:
            self.cache.keys[:, target, :, :tokens] = self.cache.keys[:, source, :, :tokens]
            self.cache.values[:, target, :, :tokens] = self.cache.values[:, source, :, :tokens]


def in_long_parts(which: NDArray[np.int64]) -> NDArray[np.int64]:
    """1 or 0: whether each of some tokens, of the texts `which`, stands in a long part of one."""
    begins = np.flatnonzero(np.diff(which, prepend=-1))
    counts = np.diff(begins, append=len(which))
    return np.repeat((counts >= LONG).astype(np.int64), counts)


def check_threads(threads: int) -> None:
    """ConfigError for a number of threads that makes no sense."""
    if not 0 <= threads <= MOST_THREADS:
        expected = f"1 to {MOST_THREADS}"
        raise ConfigError(problem("--threads", str(threads), expected, "Leave it out for what is usual."))


def check_there(
    config: ModelConfig, slots: int, ids: Sequence[int], which: Sequence[int], places: Sequence[int]
) -> None:
    """IndexError for a token, a slot or a place that there is not."""
    for name, numbers, end in (
        ("token", ids, config.vocab_size), ("slot", which, slots), ("place", places, config.context_length)
    ):  # fmt: skip
        if min(numbers) < 0 or max(numbers) >= end:
            raise IndexError(f"{name}: found {min(numbers)} to {max(numbers)}; expected 0 to {end - 1}")


def kept_in(folder: Path) -> Dtype:
    """The precision of a folder's matrices: what can be taken without any loss."""
    if is_quantised(folder):
        return "int4" if any(stored.dtype == "U8" for stored in read_header(folder / QUANTISED).values()) else "int8"
    stored, _ = find_tensors(folder)
    return "bfloat16" if all(one.dtype == "BF16" for one in stored.values() if len(one.shape) == 2) else "float32"
