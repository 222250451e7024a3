"""Byte-level byte-pair encoding, as GPT-2 uses it: start from 256 bytes, join the pairs that were frequent in training.

Text is first cut into pieces by a pattern (a word with the space before it, a number, ...); merges stay inside a piece.
Two ways lead to the ids: `encode_readably`, which one can read, and for long texts its compiled twin (`compiled/`).
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import regex
from numpy.typing import NDArray

from pellucid.runtime import DataError, inform, problem
from pellucid.text.pieces import PATTERNS, cut, utf8
from pellucid.text.tokenizer import SPECIAL_TOKENS, Tokenizer

if TYPE_CHECKING:
    from pellucid.text.compiled.encoding import FastBPE

LONG_TEXT = 8192  # characters; from here on building the fast path pays
LONG_PIECE = 128  # bytes; from here on a heap beats looking at every pair again
CACHE_SIZE = 1 << 16  # pieces

Pair = tuple[int, int]


class BPETokenizer(Tokenizer):
    """Byte-level BPE over a table of tokens and an ordered list of merges."""

    kind: ClassVar[str] = "bpe"

    def __init__(
        self, tokens: Sequence[bytes], merges: Sequence[Pair], special_tokens: Mapping[str, int], pattern: str = "gpt2"
    ) -> None:
        """`merges` are pairs of ids, first learnt first; `pattern` is a name out of PATTERNS or a regular expression.

        Raises DataError where a byte has no token, or a merge makes something that is no token.
        """
        super().__init__(tokens, special_tokens)
        self.pattern = PATTERNS.get(pattern, pattern)
        self._ids = {token: i for i, token in self.ordinary_tokens().items()}
        self._byte_ids = [self._id_of(bytes([value])) for value in range(256)]
        self._merges = [(left, right) for left, right in merges]
        self._merged = [self._id_of(self._tokens[left] + self._tokens[right]) for left, right in self._merges]
        self._ranks: dict[Pair, int] = {}
        for rank, pair in enumerate(self._merges):
            self._ranks.setdefault(pair, rank)
        self._pieces = regex.compile(self.pattern)
        self._cache: dict[str, list[int]] = {}
        self._compiled: FastBPE | None = None

    def _id_of(self, token: bytes) -> int:
        if token not in self._ids:
            raise DataError(problem("vocabulary", f"no token for {token!r}", "one", "Vocabulary and merges don't fit."))
        return self._ids[token]

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        pattern: str = "gpt2",
        special_tokens: Sequence[str] = SPECIAL_TOKENS,
    ) -> BPETokenizer:
        """Learn `vocab_size - 256` merges from `texts`; ids 0 to 255 are the bytes, special tokens come on top.

        The most frequent pair is merged first; ties go to the pair whose bytes are lexicographically greater, so that
        the merges depend on the text alone. A text too small for so many merges gives fewer, and a message.
        """
        from pellucid.text.bpe_training import learn

        if vocab_size < 256:
            found, advice = f"vocab_size {vocab_size}", "256 bytes come first, then the merges."
            raise DataError(problem("tokenizer", found, "256 or more", advice))
        merges, counts = learn(texts, vocab_size - 256, PATTERNS.get(pattern, pattern))
        if len(merges) < vocab_size - 256:
            made = 256 + len(merges)
            inform(
                f"The text supports {made:,} tokens (256 bytes + {len(merges):,} merges) of the {vocab_size:,} asked."
            )
        tokens = [bytes([value]) for value in range(256)]
        for left, right in merges:
            tokens.append(tokens[left] + tokens[right])
        tokenizer = cls(tokens, merges, {}, pattern)
        tokenizer.counts = dict(enumerate(counts))
        tokenizer.add_special_tokens(special_tokens)
        return tokenizer

    # ------------------------------------------------------------ the readable way

    def encode_ordinary(self, text: str) -> list[int]:
        fast = self._fast(len(text))
        return fast.encode(utf8(text)).tolist() if fast is not None else self.encode_readably(text)

    def encode_readably(self, text: str) -> list[int]:
        """The plain path, and the oracle of the fast one: cut into pieces, merge each."""
        utf8(text)  # refuses lone surrogates
        ids: list[int] = []
        cache = self._cache
        for piece in cut(self._pieces, text):
            merged = cache.get(piece)
            if merged is None:
                merged = self.merge_piece(piece.encode("utf-8"))
                if len(cache) >= CACHE_SIZE:
                    cache.clear()
                cache[piece] = merged
            ids.extend(merged)
        return ids

    def merge_piece(self, piece: bytes) -> list[int]:
        """The tokens of one piece: again and again, join the neighbours whose merge was learnt first."""
        ids = [self._byte_ids[value] for value in piece]
        if len(ids) >= LONG_PIECE:
            return self._merge_long(ids)
        never = len(self._merges)
        while len(ids) > 1:
            ranks = [self._ranks.get(pair, never) for pair in pairwise(ids)]
            first = min(ranks)
            if first == never:
                break
            at = ranks.index(first)
            ids[at : at + 2] = [self._merged[first]]
        return ids

    def _merge_long(self, ids: list[int]) -> list[int]:
        """As `merge_piece`, in n log n: a heap of (rank, position) over a linked list."""
        after = list(range(1, len(ids) + 1))
        before = list(range(-1, len(ids) - 1))
        end, gone = len(ids), -1
        ranks = self._ranks
        heap = [(ranks[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in ranks]
        heapq.heapify(heap)
        while heap:
            rank, i = heapq.heappop(heap)
            j = after[i]
            if ids[i] == gone or j == end or ranks.get((ids[i], ids[j])) != rank:
                continue  # the pair at this place has changed since
            ids[i], ids[j] = self._merged[rank], gone
            after[i] = after[j]
            if after[i] != end:
                before[after[i]] = i
            for left in (before[i], i):
                right = after[left] if left >= 0 else end
                if right != end and (ids[left], ids[right]) in ranks:
                    heapq.heappush(heap, (ranks[ids[left], ids[right]], left))
        return [token for token in ids if token != gone]

    # ------------------------------------------------------------ the fast way

    def encode_arrays(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        fast = self._fast(sum(map(len, texts)))
        if fast is None:
            return [np.array(self.encode_readably(text), dtype=np.uint32) for text in texts]
        return fast.encode_many([utf8(text) for text in texts])

    def _fast(self, length: int) -> FastBPE | None:
        """The compiled twin, made when a long text comes; None for short texts and for patterns that it cannot read."""
        if (
            self._compiled is None
            and length >= LONG_TEXT
            and self.pattern in PATTERNS.values()
            and sys.byteorder == "little"
        ):
            from pellucid.text.compiled.encoding import FastBPE

            self._compiled = FastBPE(self._byte_ids, self._merges, self._merged, self.pattern)
        return self._compiled

    # ------------------------------------------------------------ the vocabulary

    def _key(self, token: bytes) -> str | bytes:
        return token

    def merges(self) -> list[Pair]:
        return list(self._merges)

    def parents(self) -> dict[int, Pair]:
        """Id → the two ids that it was merged from."""
        return dict(zip(self._merged, self._merges, strict=True))
