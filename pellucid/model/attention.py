"""Attention as a ladder: each class adds one idea to the one before, and the last is the one the model uses.

    mix_by_similarity   a context vector without trainable weights
    SelfAttention       + queries, keys and values
    CausalSelfAttention + no look ahead, + dropout
    SeveralHeads        + several heads, one after another
    CausalAttention     all heads at once, in one product each; fused, or explicit for reading and seeing
                        + llama's: several queries to one key, normed and rotated heads, a window that slides

A test shows each rung equal to the next on the same weights (tests/model/test_attention.py).
Papers: Vaswani et al. 2017, "Attention Is All You Need", section 3.2; Ainslie et al. 2023, "GQA".
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.config import ModelConfig
from pellucid.model.cache import KVCache
from pellucid.model.layers import RMSNorm, together
from pellucid.model.positions import Rotation, rotate

# B batch, T tokens, S tokens looked at, D width of the model, H heads of queries, G heads of keys and values (H, or
# fewer in llama), K width of a head

BLOCK = 128  # rows that attention_in_blocks takes at a time


def mix_by_similarity(x: Tensor) -> Tensor:
    """Each token's context vector: all tokens' vectors, mixed by how similar they are to its own. (B, T, D) → same."""
    scores = x @ x.mT  # (B, T, T)
    weights = scores.softmax(dim=-1)
    return weights @ x


class SelfAttention(nn.Module):
    """One head: what a token looks for (query), what it offers (key) and what it tells (value) are learnt apart."""

    def __init__(self, d_model: int, d_head: int) -> None:
        super().__init__()
        self.query = nn.Linear(d_model, d_head)
        self.key = nn.Linear(d_model, d_head)
        self.value = nn.Linear(d_model, d_head)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → context vectors (B, T, K)."""
        weights = attention_weights(self.query(x), self.key(x), None)
        context: Tensor = weights @ self.value(x)
        return context


class CausalSelfAttention(SelfAttention):
    """One head that never looks ahead; some of its weights are dropped while training."""

    def __init__(self, d_model: int, d_head: int, dropout: float = 0.0) -> None:
        super().__init__(d_model, d_head)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → context vectors (B, T, K)."""
        mask = causal_mask(x.shape[1], x.device)
        weights = attention_weights(self.query(x), self.key(x), mask)
        context: Tensor = self.dropout(weights) @ self.value(x)
        return context


class SeveralHeads(nn.Module):
    """Several heads, one after another; an output projection mixes what they found."""

    def __init__(self, d_model: int, n_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        d_head = d_model // n_heads
        self.heads = nn.ModuleList(CausalSelfAttention(d_model, d_head, dropout) for _ in range(n_heads))
        self.output = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        mixed: Tensor = self.output(torch.cat([head(x) for head in self.heads], dim=-1))
        return mixed


class CausalAttention(nn.Module):
    """All heads at once, as the model uses it: the heads are slices of one wide query, key and value.

    Query head h looks at key head h // (H / G). `fused` computes the same in the kernel that is fastest for the
    occasion; the explicit way (`fused = False`) is the oracle of all of them.
    """

    def __init__(self, config: ModelConfig, biases: bool = True) -> None:
        super().__init__()
        self.d_head = config.d_head
        wide, narrow = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
        self.query = nn.Linear(config.d_model, wide, biases)
        self.key = nn.Linear(config.d_model, narrow, biases)
        self.value = nn.Linear(config.d_model, narrow, biases)
        self.output = nn.Linear(wide, config.d_model, biases)
        self.query_norm = RMSNorm(config.d_head, config.norm_eps) if config.query_key_norm else nn.Identity()
        self.key_norm = RMSNorm(config.d_head, config.norm_eps) if config.query_key_norm else nn.Identity()
        self.dropout = config.dropout
        self.window = config.window
        self.fused = True

    def forward(
        self, x: Tensor, cache: KVCache | None = None, layer: int = 0, rotation: Rotation | None = None
    ) -> Tensor:
        """(B, T, D) → (B, T, D). With a cache, `x` follows the tokens already in it."""
        q, k, v = self.queries_keys_values(x, rotation)
        if cache is None:
            context = self.attend(q, k, v, None, causal=True)
        else:
            mask = cache.mask(x.shape[1], self.window)
            k, v = cache.store(layer, k, v)  # (B, G, S, K)
            context = self.attend(q, k, v, mask, causal=False)
        return together(self.join_heads(context), self.output)[0]

    def queries_keys_values(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) → queries (B, H, T, K), keys and values (B, G, T, K), normed and rotated where the model does."""
        q, k, v = map(self.split_heads, together(x, self.query, self.key, self.value))
        q, k = self.query_norm(q), self.key_norm(k)
        return (q, k, v) if rotation is None else (rotate(q, rotation), rotate(k, rotation), v)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """Context vectors (B, H, T, K) from queries (B, H, T, K), keys and values (B, G, S, K)."""
        dropout = self.dropout if self.training else 0.0
        if self.fused and (causal or mask is not None) and q.requires_grad and q.device.type == "cpu":
            seen = causal_mask(q.shape[2], q.device, self.window) if causal or mask is None else mask
            return batched_attention(q, k, v, seen, dropout)
        if self.fused and mask is not None and not dropout and q.shape[2] > BLOCK and is_bfloat16_on_cpu(q, k, v):
            return attention_in_blocks(q, k, v, mask)
        if causal and (not self.fused or 0 < self.window < q.shape[2]):
            mask, causal = causal_mask(q.shape[2], q.device, self.window), False
        if self.fused:
            grouped = q.shape[1] != k.shape[1]
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=causal, dropout_p=dropout, enable_gqa=grouped
            )
        weights = attention_weights(q, for_each_query(k, q), mask)
        return F.dropout(weights, dropout) @ for_each_query(v, q)

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, T, H × K) → (B, H, T, K)."""
        batch, length, width = x.shape
        return x.view(batch, length, width // self.d_head, self.d_head).transpose(1, 2)

    def join_heads(self, x: Tensor) -> Tensor:
        """(B, H, T, K) → (B, T, H × K)."""
        return x.transpose(1, 2).flatten(2)


def for_each_query(heads: Tensor, q: Tensor) -> Tensor:
    """Keys or values (B, G, S, K) repeated, so that each of the heads of `q` has its own: (B, H, S, K)."""
    return heads.repeat_interleave(q.shape[-3] // heads.shape[-3], dim=-3)


def causal_mask(length: int, device: torch.device | str = "cpu", window: int = 0) -> Tensor:
    """(T, T) booleans: row t may look at columns 0 to t, or at the last `window` of them."""
    mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return mask.triu(1 - window) if window else mask


def attention_scores(q: Tensor, k: Tensor) -> Tensor:
    """Queries times keys, scaled so that their spread does not grow with K: (…, T, K), (…, S, K) → (…, T, S)."""
    return q @ k.mT / math.sqrt(q.shape[-1])


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax of the scores over what the mask lets through: rows sum to one. (…, T, S)."""
    scores = attention_scores(q, k)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1)


def batched_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, dropout: float = 0.0) -> Tensor:
    """Attention as batched products: while training on a CPU two to four times faster than the fused kernel.

    Its backward pass is what costs there (docs/performance.md). `seen` (T, S) or (B, 1, T, S) says which columns each
    token looks at; it is added inside the first product. Heads of queries that share a key stand below each other as
    rows of one product.
    """
    batch, groups, _, width = k.shape
    sharing, length = q.shape[1] // groups, q.shape[2]
    mask = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill(~seen, -math.inf)
    if mask.dim() == 4:
        mask = mask.expand(batch, groups, length, -1).flatten(0, 1)
    mask = mask if sharing == 1 else mask.repeat(*[1] * (mask.dim() - 2), sharing, 1)
    keys, queries = k.flatten(0, 1), (q / math.sqrt(width)).reshape(batch * groups, sharing * length, width)
    scores = torch.baddbmm(mask, queries, keys.mT)
    weights = F.dropout(scores.softmax(dim=-1), dropout)
    return torch.bmm(weights, v.flatten(0, 1)).view(q.shape)


def is_bfloat16_on_cpu(*tensors: Tensor) -> bool:
    """Whether all are bfloat16 on a CPU, where the fused kernel is slow."""
    return all(tensor.dtype == torch.bfloat16 and tensor.device.type == "cpu" for tensor in tensors)


def attention_in_blocks(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Batched attention without dropout, BLOCK rows at a time, each with the columns that its last row may see at most.

    In bfloat16 on a CPU half the time of the fused kernel (docs/performance.md). Nobody looks ahead: of the S columns
    the last T are the rows' own.
    """
    length, before = q.shape[2], k.shape[2] - q.shape[2]
    parts = []
    for start in range(0, length, BLOCK):
        end = min(start + BLOCK, length)
        columns = slice(0, before + end)
        rows = q[:, :, start:end], k[:, :, columns], v[:, :, columns]
        parts.append(batched_attention(*rows, seen[..., start:end, columns]))
    return torch.cat(parts, dim=2)
