"""A model's weights as the compiled pass reads them: in the asked precision, those of all layers below each other.

Rows stay as they are, padded with zeros to whole vectors; queries, keys and values become one matrix, and so do the
gate and what it opens. The weights given are used up on the way, so that the memory never holds all of them twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pellucid.compute import return_freed_memory
from pellucid.config import ModelConfig
from pellucid.generation.compiled.passes import Matrices, Matrix, Sizes, Vectors
from pellucid.generation.compiled.products import INT4_OFFSET, INT8_OFFSET, ROWS, STEP
from pellucid.model.formats.quantised import GROUP, Quantised, in_few_bits, quantise

Dtype = Literal["float32", "bfloat16", "int8", "int4"]
Weights = dict[str, Tensor | Quantised]
NUMBERS = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.uint8, "int4": np.uint8}
BITS = {"int8": 8, "int4": 4}


class Packed(NamedTuple):
    """What `forward` takes of a model."""

    sizes: Sizes
    matrices: Matrices
    vectors: Vectors

    @property
    def nbytes(self) -> int:
        """Memory that the weights take."""
        matrices = {id(matrix[0]): matrix[0].nbytes + matrix[1].nbytes for matrix in self.matrices}  # tied ones once
        return sum(matrices.values()) + sum(vector.nbytes for vector in self.vectors)


def pack(config: ModelConfig, weights: Weights, dtype: Dtype) -> Packed:
    """Use up `weights`: our state dict, whole or quantised."""
    gated = config.family == "llama"
    layers, d = config.n_layers, config.d_model
    heads = (config.n_heads + 2 * config.n_kv_heads) * config.d_head
    sizes = Sizes(
        layers, d, config.n_heads, config.n_kv_heads, config.d_head, config.d_ff, config.window, config.norm_eps,
        centred=not gated, gated=gated, turned=config.positions == "rotary", headed=config.query_key_norm,
    )  # fmt: skip

    def stacked(rows: int, *parts: tuple[str, ...]) -> Matrix:
        """In each layer one part below the other, each of `rows` rows with its padding."""
        blocks = [[weights.pop(f"blocks.{i}.{name}.weight") for name in part] for i in range(layers) for part in parts]
        return matrix(blocks, rows, dtype)

    def vectors(name: str, width: int) -> NDArray[np.float32]:
        found = [weights.pop(f"blocks.{i}.{name}", None) for i in range(layers)]
        return np.stack([np.zeros(width, np.float32) if one is None else as_array(one) for one in found])

    def all_norms(kind: str) -> NDArray[np.float32]:
        names = [f"blocks.{i}.{half}_norm.{kind}" for i in range(layers) for half in ("attention", "feed_forward")]
        found = [weights.pop(name, None) for name in (*names, f"final_norm.{kind}")]
        return np.stack([np.zeros(d, np.float32) if one is None else as_array(one) for one in found])

    top: Dtype = "int8" if dtype == "int4" else dtype
    embedding = matrix([[weights.pop("token_embedding.weight")]], config.vocab_size, top, STEP[dtype])
    own_output = weights.pop("output_layer.weight", None)
    output = embedding if own_output is None else matrix([[own_output]], config.vocab_size, top, STEP[dtype])
    biases = np.concatenate([vectors(f"attention.{part}.bias", width) for part, width in (
        ("query", config.n_heads * config.d_head), ("key", config.n_kv_heads * config.d_head),
        ("value", config.n_kv_heads * config.d_head),
    )], axis=1)  # fmt: skip
    expand = (("feed_forward.gate",), ("feed_forward.expand",)) if gated else (("feed_forward.expand",),)
    return Packed(
        sizes,
        Matrices(
            embedding,
            stacked(heads, ("attention.query", "attention.key", "attention.value")),
            stacked(d, ("attention.output",)),
            stacked(config.d_ff, *expand),
            stacked(d, ("feed_forward.contract",)),
            output,
        ),
        Vectors(
            as_array(weights.pop("position_embedding.weight", torch.zeros(0, d))),
            all_norms("weight"),
            all_norms("bias"),
            biases,
            vectors("attention.output.bias", d),
            vectors("feed_forward.expand.bias", config.d_ff),
            vectors("feed_forward.contract.bias", d),
            vectors("attention.query_norm.weight", config.d_head),
            vectors("attention.key_norm.weight", config.d_head),
            np.zeros(config.d_head, np.float32),
        ),
    )


def in_precision(name: str, weight: Tensor, dtype: Dtype) -> Tensor | Quantised:
    """A weight of a state dict as it is kept until it is packed."""
    if dtype in BITS:
        return in_few_bits(name, weight, BITS[dtype])
    is_matrix = weight.dim() == 2 and not name.startswith("position_embedding")
    return weight.bfloat16() if dtype == "bfloat16" and is_matrix else weight


def as_array(weight: Tensor | Quantised) -> NDArray[np.float32]:
    """A vector or a table, in float32."""
    assert isinstance(weight, Tensor)
    found: NDArray[np.float32] = weight.detach().float().cpu().numpy()
    return found


def matrix(blocks: Sequence[list[Tensor | Quantised]], rows: int, dtype: Dtype, step: int = 0) -> Matrix:
    """Blocks of matrices below each other, each block padded to whole fours of rows; the blocks are emptied."""
    one = blocks[0][0]
    inputs = one.inputs if isinstance(one, Quantised) else one.shape[1]
    step = step or STEP[dtype]
    width, pitch = -(-inputs // step) * step, -(-rows // ROWS) * ROWS
    columns = width // 2 if dtype == "int4" else width
    offset = {"int8": INT8_OFFSET, "int4": INT4_OFFSET * 17}.get(dtype, 0)
    if offset:
        numbers = np.full((len(blocks) * pitch, columns), offset, np.uint8)
    else:
        numbers = np.zeros((len(blocks) * pitch, columns), NUMBERS[dtype])
    shape = {"int8": (len(numbers),), "int4": (len(numbers), width // GROUP)}.get(dtype, (0,))
    scales = np.zeros(shape, np.float32)
    for i, block in enumerate(blocks):
        at = i * pitch
        while block:
            part = block.pop(0)
            count = len(part.numbers) if isinstance(part, Quantised) else len(part)
            fill(numbers[at : at + count], scales[at : at + count], part, dtype)
            at += count
    del part
    return_freed_memory()
    return numbers.reshape(-1), scales, width


def fill(numbers: NDArray[Any], scales: NDArray[np.float32], part: Tensor | Quantised, dtype: Dtype) -> None:
    """Put a matrix into its place, in the asked precision."""
    if dtype in BITS:
        if not isinstance(part, Quantised) or part.bits != BITS[dtype]:
            part = quantise(plain(part), BITS[dtype])
        found = part.numbers.cpu().numpy().view(np.uint8)
        offset = np.uint8(INT8_OFFSET if dtype == "int8" else 0)
        np.bitwise_xor(found, offset, out=numbers[:, : found.shape[1]])  # no copy between
        scales[...] = part.scales.cpu().numpy()
        return
    weight = plain(part)
    if dtype == "bfloat16":
        numbers[:, : weight.shape[1]] = weight.bfloat16().view(torch.uint16).numpy()
    else:
        numbers[:, : weight.shape[1]] = weight.numpy()


def plain(part: Tensor | Quantised) -> Tensor:
    """As float32, on the CPU."""
    return part.plain() if isinstance(part, Quantised) else part.detach().float().cpu()
