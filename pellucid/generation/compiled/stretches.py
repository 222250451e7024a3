"""Long stretches of one text: read by the readable model itself, on the packed weights and into the same slots.

A few tokens wait for the memory, and the compiled pass reads it as fast as it gives. Hundreds of tokens wait for the
processor, and there torch's products of whole matrices are two to ten times as fast (but for bytes, where they are what
the processor multiplies fastest; `CompiledModel` says when). So a prompt goes through `GPT`, each of whose matrices is
a part of a packed one, brought into the precision that this machine multiplies fastest when its turn comes. Nothing is
kept twice. What comes after a stretch looks at its keys and values alone, so the last block ends with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.compiled.vectors import COMPILED
from pellucid.config import ModelConfig
from pellucid.generation.compiled.nibbles import INT4_OFFSET, SIDE
from pellucid.generation.compiled.packing import Packed
from pellucid.generation.compiled.passes import Cache, Matrix
from pellucid.generation.compiled.products import INT8_OFFSET
from pellucid.generation.compiled.steps import look_up
from pellucid.model.cache import KVCache
from pellucid.model.formats.quantised import GROUP
from pellucid.model.gpt import GPT
from pellucid.model.outline import Outline
from pellucid.model.positions import Rotation

# T tokens of the stretch, S places of a slot, G heads of keys and values, K width of a head, O outputs, I inputs

LONG = 128  # tokens from which a stretch is faster here than in the compiled pass, of bytes too
TOGETHER = 1024  # tokens that go through at a time
FEW = 256  # rows of bytes that are made whole at a time: few enough for the caches


class Stretches:
    """`read` takes the tokens of one text that stand in a row, and leaves their keys and values in its slot.

    `dtype` is the precision of the products.
    """

    def __init__(self, config: ModelConfig, packed: Packed, dtype: torch.dtype, threads: int) -> None:
        self.config, self.dtype, self.threads = config, dtype, threads
        self.model = over(config, packed, dtype)

    @torch.inference_mode()
    def read(self, ids: Sequence[int], cache: Cache, slot: int, place: int) -> None:
        """Read `ids`, of which the first stands at `place` of the slot; what is before it was read."""
        row = Row(self.config, cache, slot, place, self.dtype)
        usual = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                for part in torch.tensor([ids]).split(TOGETHER, dim=1):
                    self.model.hidden(part, row)
        finally:
            torch.set_num_threads(usual)


class Row(KVCache):
    """One slot of the compiled model as the readable one knows its cache: the same memory, looked at in its order."""

    def __init__(self, config: ModelConfig, cache: Cache, slot: int, used: int, dtype: torch.dtype) -> None:
        self.keys = as_tensor(cache.keys)[:, slot : slot + 1, :, :, : config.d_head]
        self.values = as_tensor(cache.values)[:, slot : slot + 1, :, :, : config.d_head]
        self.padding, self.used, self.dtype = None, used, dtype

    def store(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the new (1, G, T, K) behind the old ones; all of them, (1, G, S, K), in the precision of the products."""
        all_keys, all_values = super().store(layer, keys, values)
        return all_keys.to(self.dtype), all_values.to(self.dtype)


class Kept(nn.Module):
    """Rows of a packed matrix as a linear layer, or as an embedding.

    Those of bytes are made whole in `room`, which all share: memory that is new each time costs more than the rest.
    """

    def __init__(
        self, matrix: Matrix, first: int, shape: Sequence[int], room: Tensor, bias: Tensor | None = None
    ) -> None:
        super().__init__()
        numbers, scales, width = matrix
        rows, self.inputs = shape
        self.first, self.last, self.scales = first, first + rows, as_tensor(scales) if scales.size else None
        if scales.ndim == 1:
            lines = len(numbers) // width
            self.numbers = as_tensor(numbers.reshape(lines, width))
        else:
            self.numbers = as_tensor(numbers.view(np.int32).reshape(len(scales), -1, SIDE))
        self.room, self.bias = room, bias

    def forward(self, x: Tensor) -> Tensor:
        """(1, T, I) → (1, T, O)."""
        return F.linear(x, self.weight(), self.bias)

    def weight(self) -> Tensor:
        """(O, I), in the precision of the products."""
        if self.scales is None:
            return self.numbers[self.first : self.last, : self.inputs].to(self.room.dtype)
        whole = self.room[: (self.last - self.first) * self.inputs].view(-1, self.inputs)
        for start in range(self.first, self.last, FEW):
            end = min(start + FEW, self.last)
            whole[start - self.first : end - self.first] = self.plain(*self.rows(start, end))
        return whole

    def look_up(self, ids: Tensor) -> Tensor:
        """Some rows (T, I), in float32."""
        rows = ids + self.first
        return self.plain(self.numbers[rows], None if self.scales is None else self.scales[rows])

    def rows(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Some rows of bytes, and their scales."""
        assert self.scales is not None
        if self.scales.dim() == 1:
            return self.numbers[start:end], self.scales[start:end]
        sides, part = slice(start // SIDE, -(-end // SIDE)), slice(start % SIDE, start % SIDE + end - start)
        numbers, scales = (kept[sides].transpose(1, 2).flatten(0, 1)[part] for kept in (self.numbers, self.scales))
        return numbers.contiguous().view(torch.uint8), scales

    def plain(self, numbers: Tensor, scales: Tensor | None) -> Tensor:
        """Some rows, in float32."""
        if scales is None:
            return numbers[:, : self.inputs].float()
        if scales.dim() == 1:
            return numbers[:, : self.inputs].float().sub_(INT8_OFFSET).mul_(scales[:, None])
        halves = numbers.view(len(numbers), -1, GROUP)
        both = torch.stack([halves & 15, halves >> 4], dim=2).flatten(1, 2).float()
        return both.sub_(INT4_OFFSET).mul_(scales[:, :, None]).flatten(1)[:, : self.inputs]


class KeptInTwelve(Kept):
    """The same of a matrix in twelve bits."""

    def __init__(
        self, matrix: Matrix, first: int, shape: Sequence[int], room: Tensor, bias: Tensor | None = None
    ) -> None:
        nn.Module.__init__(self)
        rows, self.inputs = shape
        self.matrix, self.room, self.bias = matrix, room, bias
        self.all = np.arange(first, first + rows)

    def weight(self) -> Tensor:
        """(O, I), in the precision of the products."""
        return self.whole(self.all, self.room)

    def look_up(self, ids: Tensor) -> Tensor:
        """Some rows (T, I), in float32."""
        return self.whole(self.all[ids.numpy()], torch.empty(len(ids) * self.matrix[2]))

    def whole(self, rows: NDArray[np.int64], room: Tensor) -> Tensor:
        """Some rows, in `room`."""
        out = room.view(torch.uint16) if room.dtype == torch.bfloat16 else room
        whole_rows(self.matrix, rows, out.numpy())
        return room[: len(rows) * self.matrix[2]].view(len(rows), -1)[:, : self.inputs]


@njit(**COMPILED)
def whole_rows(matrix: Any, rows: Any, out: Any) -> None:
    """Some `rows` of a matrix below each other, each with its padding.

    By one thread: those of torch's product before are still looking for work, and two of ours took longer.
    """
    for i in range(rows.shape[0]):
        look_up(matrix, rows[i], out, i * matrix[2], matrix[2])


class KeptEmbedding(nn.Module):
    """Rows of a packed matrix, looked up."""

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self.kept = kept

    def forward(self, ids: Tensor) -> Tensor:
        """(1, T) → (1, T, D)."""
        return self.kept.look_up(ids[0])[None]


class LastBlock(nn.Module):
    """Stores the keys and values of a block of which nothing else is wanted."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm, self.attention = block.attention_norm, block.attention

    def forward(self, x: Tensor, cache: KVCache, layer: int, rotation: Rotation | None) -> Tensor:
        """(1, T, D), which is returned as it is."""
        _, keys, values = self.attention.queries_keys_values(self.norm(x), rotation)
        cache.store(layer, keys, values)
        return x


def over(config: ModelConfig, packed: Packed, dtype: torch.dtype) -> GPT:
    """The readable model up to its last keys and values, each of its parts a part of `packed`."""
    matrices, vectors = packed.matrices, packed.vectors
    with Outline():
        model = GPT(config).eval()
    in_twelve = matrices.expand[0].dtype == np.uint32
    inputs, heads = max(matrices.expand[2], matrices.output[2]), config.n_heads * config.d_head
    largest = max(max(config.d_model, config.d_ff, heads) * inputs, config.d_model * matrices.contract[2])
    room = torch.empty(largest if matrices.expand[1].size else 0, dtype=dtype)

    def kept(matrix: Matrix, first: int, shape: Sequence[int], bias: Tensor | None = None) -> Kept:
        return (KeptInTwelve if in_twelve else Kept)(matrix, first, shape, room, bias)

    def keep(part: Any, name: str, matrix: Matrix, first: int, bias: NDArray[np.float32] | None) -> int:
        shape = getattr(part, name).weight.shape
        setattr(part, name, kept(matrix, first, shape, None if bias is None else as_tensor(bias[: shape[0]])))
        return int(shape[0])

    blocks: Any = model.blocks
    for i, block in enumerate(blocks):
        attention, feed_forward = block.attention, block.feed_forward
        first, done = i * padded(vectors.attention.shape[1]), 0
        for name in ("query", "key", "value"):
            done += keep(attention, name, matrices.attention, first + done, vectors.attention[i, done:])
        rows, wide = padded(config.d_model), padded(config.d_ff)
        keep(attention, "output", matrices.output, i * rows, vectors.output[i])
        if config.family == "llama":
            keep(feed_forward, "gate", matrices.expand, 2 * i * wide, None)
            keep(feed_forward, "expand", matrices.expand, (2 * i + 1) * wide, None)
        else:
            keep(feed_forward, "expand", matrices.expand, i * wide, vectors.expand[i])
        keep(feed_forward, "contract", matrices.contract, i * rows, vectors.contract[i])
    shape = (config.vocab_size, config.d_model)
    model.token_embedding = KeptEmbedding(kept(matrices.embedding, 0, shape))  # type: ignore[assignment]
    found = {"position_embedding.weight": vectors.positions, **norms(config, packed)}
    plain = {name: as_tensor(array) for name, array in found.items() if name in model.state_dict()}
    model.load_state_dict(plain, strict=False, assign=True)
    blocks[-1] = LastBlock(blocks[-1])
    return model


def norms(config: ModelConfig, packed: Packed) -> dict[str, NDArray[np.float32]]:
    """The norms' weights and biases, by their names in the model."""
    vectors, found = packed.vectors, {}
    halves = [f"blocks.{i}.{half}" for i in range(config.n_layers) for half in ("attention_norm", "feed_forward_norm")]
    for row, name in enumerate([*halves, "final_norm"]):
        found |= {f"{name}.weight": vectors.norms[row], f"{name}.bias": vectors.norm_biases[row]}
    for i in range(config.n_layers):
        found[f"blocks.{i}.attention.query_norm.weight"] = vectors.query_norms[i]
        found[f"blocks.{i}.attention.key_norm.weight"] = vectors.key_norms[i]
    return found


def padded(rows: int) -> int:
    """Rows that a matrix of so many takes in a packed one."""
    return -(-rows // SIDE) * SIDE


def as_tensor(array: NDArray[Any]) -> Tensor:
    """The same memory; uint16 is bfloat16."""
    found = torch.from_numpy(array)
    return found.view(torch.bfloat16) if found.dtype == torch.uint16 else found
