"""A model's weights as the compiled pass reads them: in the asked precision, those of all layers below each other.

Rows stay as they are, padded with zeros to whole vectors; queries, keys and values become one matrix, and so do the
gate and what it opens. The room is there first, and each piece of a weight is put into its place as it comes from the
file: half a gigabyte is neither written twice nor held twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.compute import one_thread, return_freed_memory
from pellucid.config import ModelConfig
from pellucid.generation.compiled.nibbles import INT4_OFFSET, SIDE
from pellucid.generation.compiled.passes import Matrices, Matrix, Sizes, Vectors
from pellucid.generation.compiled.products import INT8_OFFSET, STEP
from pellucid.generation.compiled.twelves import BLOCK, WORDS, Keeper
from pellucid.model.formats.quantised import GROUP, Quantised, quantise
from pellucid.model.formats.tensor_files import Piece
from pellucid.model.gpt import GPT
from pellucid.model.outline import Outline

Dtype = Literal["float32", "bfloat16", "int8", "int4"]
Kind = Literal[Dtype, "twelve"]  # how matrices are kept: what bfloat16 is may be so in twelve bits
NUMBERS = {"float32": np.float32, "bfloat16": np.uint16, "twelve": np.uint32, "int8": np.uint8, "int4": np.uint8}
BITS = {"int8": 8, "int4": 4}
LINE = 64  # bytes of the cache that are read together
LARGE = 1 << 25  # numbers from which on bfloat16 is kept in twelve bits: so many are read from the memory each time


class Packed(NamedTuple):
    """What `forward` takes of a model."""

    sizes: Sizes
    matrices: Matrices
    vectors: Vectors

    @property
    def nbytes(self) -> int:
        """Memory that the weights take."""
        parts = {id(part): part.nbytes for matrix in self.matrices for part in matrix if isinstance(part, np.ndarray)}
        return sum(parts.values()) + sum(vector.nbytes for vector in self.vectors)  # tied matrices once


class Place(NamedTuple):
    """Where a weight goes: a packed array, which may be wider, its scales, and which row of them is the first."""

    numbers: NDArray[Any]
    scales: NDArray[np.float32]
    dtype: Kind
    first: int = 0
    keeper: Keeper | None = None  # of a matrix in twelve bits


def pack(config: ModelConfig, pieces: Iterable[Piece], dtype: Dtype) -> Packed:
    """Our state dict, whole or quantised, in pieces of any size and order."""
    packed, places = room_for(config, dtype)
    for name, start, rows in pieces:
        fill(places[name], start, rows)
    return_freed_memory()
    return packed._replace(matrices=Matrices(*map(with_lost, packed.matrices)))


def with_lost(matrix: Matrix) -> Matrix:
    """A matrix in twelve bits with the numbers that these can't keep; any other as it is."""
    return (*matrix[:3], *matrix[3].lost()) if len(matrix) > 3 else matrix


def room_for(config: ModelConfig, dtype: Dtype) -> tuple[Packed, dict[str, Place]]:
    """A model's packed weights, all of them 0, and the place of each by its name in our state dict."""
    gated = config.family == "llama"
    layers, d = config.n_layers, config.d_model
    sizes = Sizes(
        layers, d, config.n_heads, config.n_kv_heads, config.d_head, config.d_ff, config.window, config.norm_eps,
        centred=not gated, gated=gated, turned=config.positions == "rotary", headed=config.query_key_norm,
    )  # fmt: skip
    vectors, places = room_for_vectors(config)
    kind: Kind = "twelve" if dtype == "bfloat16" and numbers_of(config) >= LARGE else dtype

    def stacked(inputs: int, *blocks: dict[str, int]) -> Matrix:
        """In each layer one block below the other: name → rows."""
        named = [{f"blocks.{i}.{name}.weight": rows for name, rows in block.items()} for i in range(layers)
                 for block in blocks]  # fmt: skip
        found, there = room_for_matrix(inputs, named, kind, STEP[kind])
        places.update(there)
        return found

    def top(name: str) -> Matrix:
        """One row for each token; never in fewer than 8 bits."""
        least: Kind = "int8" if kind == "int4" else kind
        found, there = room_for_matrix(d, [{name: config.vocab_size}], least, STEP[kind])
        places.update(there)
        return found

    expand = [{name: config.d_ff} for name in ("feed_forward.gate", "feed_forward.expand")[0 if gated else 1 :]]
    embedding = top("token_embedding.weight")
    matrices = Matrices(
        embedding,
        stacked(d, {f"attention.{name}": rows for name, rows in attention_rows(config).items()}),
        stacked(config.n_heads * config.d_head, {"attention.output": d}),
        stacked(d, *expand),
        stacked(config.d_ff, {"feed_forward.contract": d}),
        embedding if config.tied else top("output_layer.weight"),
    )
    return Packed(sizes, matrices, vectors), places


def numbers_of(config: ModelConfig) -> int:
    """Trained numbers of a model."""
    with Outline():
        return GPT(config).parameter_count()


def attention_rows(config: ModelConfig) -> dict[str, int]:
    """The outputs of the projections that are one matrix here."""
    keys = config.n_kv_heads * config.d_head
    return {"query": config.n_heads * config.d_head, "key": keys, "value": keys}


def room_for_vectors(config: ModelConfig) -> tuple[Vectors, dict[str, Place]]:
    """The same of all that is no matrix: positions, norms and biases, always in float32."""
    layers, d = config.n_layers, config.d_model
    places: dict[str, Place] = {}

    def vectors(width: int, *names: str) -> NDArray[np.float32]:
        """One below the other."""
        found = np.zeros((len(names), width), np.float32)
        places.update({name: Place(row, found[:0, 0], "float32") for name, row in zip(names, found, strict=True)})
        return found

    def in_layers(width: int, name: str) -> NDArray[np.float32]:
        return vectors(width, *(f"blocks.{i}.{name}" for i in range(layers)))

    def norms(kind: str) -> NDArray[np.float32]:
        halves = [f"blocks.{i}.{half}_norm.{kind}" for i in range(layers) for half in ("attention", "feed_forward")]
        return vectors(d, *halves, f"final_norm.{kind}")

    positions = np.zeros((0 if config.positions == "rotary" else config.context_length, d), np.float32)
    places["position_embedding.weight"] = Place(positions, positions[:0, 0], "float32")
    widths = attention_rows(config)
    biases = np.zeros((layers, sum(widths.values())), np.float32)
    for name, part in zip(widths, np.split(biases, np.cumsum([*widths.values()])[:-1], axis=1), strict=True):
        rows = {f"blocks.{i}.attention.{name}.bias": Place(row, row[:0], "float32") for i, row in enumerate(part)}
        places.update(rows)
    return Vectors(
        positions,
        norms("weight"),
        norms("bias"),
        biases,
        in_layers(d, "attention.output.bias"),
        in_layers(config.d_ff, "feed_forward.expand.bias"),
        in_layers(d, "feed_forward.contract.bias"),
        in_layers(config.d_head, "attention.query_norm.weight"),
        in_layers(config.d_head, "attention.key_norm.weight"),
        np.zeros(config.d_head, np.float32),
    ), places


def room_for_matrix(
    inputs: int, blocks: Sequence[dict[str, int]], dtype: Kind, step: int
) -> tuple[Matrix, dict[str, Place]]:
    """Blocks of matrices (name → rows) below each other, each padded to whole sixteens of rows, and their places.

    Of 4 bits 16 rows lie side by side, four bytes of each, and so do their scales (nibbles.py says why).
    """
    width, pitch = -(-inputs // step) * step, -(-sum(blocks[0].values()) // SIDE) * SIDE
    taken = {"int4": width // 2, "twelve": width // BLOCK * WORDS}
    shape = (len(blocks) * pitch, taken.get(dtype, width))
    offset = {"int8": INT8_OFFSET, "int4": INT4_OFFSET * 17}.get(dtype, 0)
    numbers = zeros(shape, NUMBERS[dtype])
    if offset:
        numbers.fill(offset)
    sides = (shape[0] // SIDE, width // GROUP, SIDE)
    scales = np.zeros({"int8": shape[:1], "twelve": shape[:1], "int4": sides}.get(dtype, (0,)), np.float32)
    lines, their_scales, keeper = numbers, scales, Keeper(shape[0]) if dtype == "twelve" else None
    if dtype == "int4":  # (sixteens, 16, bytes / 4) and (sixteens, 16, groups)
        lines = numbers.view(np.uint32).reshape(len(scales), -1, SIDE).swapaxes(1, 2)
        their_scales = scales.swapaxes(1, 2)
    places = {}
    for i, block in enumerate(blocks):
        at = i * pitch
        for name, rows in block.items():
            places[name] = Place(lines, their_scales, dtype, at, keeper)
            at += rows
    return (numbers.reshape(-1), scales, width, *([keeper] if keeper else [])), places


def zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """As NumPy's, but where a line of the cache begins: vectors and tiles of 64 bytes then take one line, not two."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.zeros(size + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    found: NDArray[Any] = room[start : start + size].view(dtype).reshape(shape)
    return found


def fill(place: Place, start: int, part: Tensor | Quantised) -> None:
    """Put rows of a matrix, from `start` on, or a vector, into their place, in the asked precision.

    Only the search for the scales of int4 is work enough for more than one thread; the rest waits for the memory.
    """
    numbers, scales, dtype, first, keeper = place
    begin, count = first + start, len(part.numbers) if isinstance(part, Quantised) else len(part)
    rows = slice(begin, begin + count)
    with nullcontext() if dtype == "int4" else one_thread():
        if dtype in BITS:
            if not isinstance(part, Quantised) or part.bits != BITS[dtype]:
                part = quantise(plain(part), BITS[dtype])
            found = part.numbers.cpu().numpy().view(np.uint8)
            if dtype == "int8":
                np.bitwise_xor(found, np.uint8(INT8_OFFSET), out=numbers[rows, : found.shape[1]])  # no copy between
                scales[rows] = part.scales.cpu().numpy()
            else:
                sides = np.divmod(np.arange(begin, begin + count), SIDE)
                numbers[sides], scales[sides] = found.view(np.uint32), part.scales.cpu().numpy()
        else:
            weight = plain(part)
            found = weight.numpy() if dtype == "float32" else weight.bfloat16().view(torch.uint16).numpy()
            if keeper:
                keeper.put(np.ascontiguousarray(found), begin, numbers.reshape(-1), scales)
            else:
                numbers[rows][..., : found.shape[-1]] = found


def plain(part: Tensor | Quantised) -> Tensor:
    """As float32, on the CPU."""
    return part.plain() if isinstance(part, Quantised) else part.detach().float().cpu()
