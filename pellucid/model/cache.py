"""The keys and values of tokens already seen, so that each new token costs one row of work.

The cache belongs to whoever generates, and is passed in; the model keeps no state of its own. Rows of different
lengths stand flush right: `padding[b]` columns at the left of row b are empty and never attended to.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.config import ModelConfig

# B batch, T new tokens, S tokens in the cache, G heads of keys and values, K width of a head


class KVCache:
    """Room for `length` tokens of `batch_size` rows in every layer.

    padding: (B,) number of empty columns at the left of each row, or None when all rows are full.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch_size: int,
        length: int,
        padding: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.n_layers, batch_size, config.n_kv_heads, length, config.d_head)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.padding = padding
        self.used = 0

    @property
    def length(self) -> int:
        """Tokens for which there is room."""
        return self.keys.shape[3]

    def make_room(self, total: int, most: int) -> None:
        """Grow to at least `total` columns, doubling up to `most`, so that each token is copied about once."""
        if total > self.length:
            more = min(most, max(total, 2 * self.length)) - self.length
            self.keys, self.values = (F.pad(part, (0, 0, 0, more)) for part in (self.keys, self.values))

    def positions(self, new: int) -> Tensor:
        """Positions of the next `new` tokens, each row counted from its own first token: (T,) or (B, T)."""
        columns = torch.arange(self.used, self.used + new, device=self.keys.device)
        return columns if self.padding is None else (columns - self.padding[:, None]).clamp(min=0)

    def mask(self, new: int, window: int = 0) -> Tensor | None:
        """Which columns each new token may look at, (B or 1, 1, T, S) booleans; None when it may look at all."""
        total = self.used + new
        slides = 0 < window < total
        if new == 1 and self.padding is None and not slides:
            return None
        rows = torch.arange(self.used, total, device=self.keys.device)[:, None]
        columns = torch.arange(total, device=self.keys.device)
        seen = (columns <= rows)[None, None]
        if slides:
            seen = seen & (columns > rows - window)
        if self.padding is not None:
            real = columns[None, None, None] >= self.padding[:, None, None, None]
            seen = seen & real | (columns == rows)  # an empty column looks at itself, so that no softmax is empty
        return seen

    def store(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the new (B, G, T, K) keys and values behind the old ones; return all of them, (B, G, S, K)."""
        total = self.used + keys.shape[2]
        self.keys[layer, :, :, self.used : total] = keys
        self.values[layer, :, :, self.used : total] = values
        return self.keys[layer, :, :, :total], self.values[layer, :, :, :total]

    def advance(self, new: int) -> None:
        """Count `new` tokens as stored, once every layer has stored them."""
        self.used += new
