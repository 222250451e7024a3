"""Decodes ids by copying each token's bytes, compiled: the twin of joining them one by one."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.text.compiled import entry

WORD = 8  # bytes copied at once; most tokens are no longer


@entry
def _size(ids: Any, offsets: Any) -> Any:
    """How many bytes the ids stand for; -1 where one is out of range."""
    total = 0
    for place in range(ids.shape[0]):
        token = np.int64(ids[place])
        if token >= offsets.shape[0] - 1:
            return -1
        total += offsets[token + 1] - offsets[token]
    return total


@entry
def _copy(ids: Any, offsets: Any, blob: Any, hidden: Any, out: Any) -> Any:
    """Copy the bytes of all ids that are not hidden; how many. A word more may be written than that."""
    end = 0
    for place in range(ids.shape[0]):
        token = np.int64(ids[place])
        if hidden[token]:
            continue
        start, size = offsets[token], offsets[token + 1] - offsets[token]
        for i in range(WORD):
            out[end + i] = blob[start + i]
        for i in range(WORD, size):
            out[end + i] = blob[start + i]
        end += size
    return end


class FastDecoder:
    """All tokens' bytes one behind the other, to copy from."""

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self.vocab_size = len(tokens)
        self._offsets = np.cumsum([0, *map(len, tokens)])
        self._blob = np.frombuffer(b"".join([*tokens, bytes(WORD)]), dtype=np.uint8)

    def join(self, ids: Sequence[int] | NDArray[Any], hidden: Collection[int] = ()) -> bytes | None:
        """The bytes of all ids but the hidden ones; None where an id is out of range."""
        try:
            found = np.frombuffer(array("I", ids), np.uint32) if not isinstance(ids, np.ndarray) else _unsigned(ids)
        except (OverflowError, TypeError):  # below 0, above 32 bits, or no whole number
            return None
        size = _size(found, self._offsets)
        if size < 0:
            return None
        out, is_hidden = np.empty(size + WORD, dtype=np.uint8), np.zeros(self.vocab_size, dtype=np.bool_)
        is_hidden[list(hidden)] = True
        return out[: _copy(found, self._offsets, self._blob, is_hidden, out)].tobytes()


def _unsigned(ids: NDArray[Any]) -> NDArray[np.uint32]:
    if ids.dtype != np.uint32 and len(ids) and (ids.min() < 0 or ids.max() > 0xFFFFFFFF):
        raise OverflowError
    return ids.astype(np.uint32, copy=False)
