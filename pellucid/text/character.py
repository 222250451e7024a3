"""The simplest tokenizer: each character is a token. The vocabulary is small, the sequences are long.

Characters that were not in the training text become <|unk|>; that loses them, and is said in a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Self

from pellucid.runtime import DataError, inform, problem
from pellucid.text.counting import count_pieces
from pellucid.text.pieces import utf8
from pellucid.text.tokenizer import SPECIAL_TOKENS, UNKNOWN, Tokenizer


class CharacterTokenizer(Tokenizer):
    """A token is a character; ids follow frequency, most frequent first."""

    kind: ClassVar[str] = "char"
    pattern: str = r"[\s\S]"

    def __init__(self, tokens: Sequence[bytes], special_tokens: dict[str, int]) -> None:
        super().__init__(tokens, special_tokens)
        self._ids = {token.decode("utf-8"): i for i, token in self.ordinary_tokens().items()}

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int | None = None, special_tokens: Sequence[str] = SPECIAL_TOKENS
    ) -> Self:
        """Count the pieces of `texts`, keep the `vocab_size` most frequent (None: all); special tokens come on top.

        Ties go to the piece that sorts first. Raises DataError where there is no text.
        """
        counts = count_pieces(texts, cls.split)
        if not counts:
            raise DataError(problem("training text", "no text", "some", "Check the files that you gave."))
        by_frequency = sorted(counts, key=lambda piece: (-counts[piece], piece))
        kept = by_frequency[:vocab_size]
        if vocab_size is not None and len(kept) < vocab_size:
            inform(
                f"The text holds {len(kept):,} different {cls.kind} tokens, fewer than the {vocab_size:,} asked for."
            )
        tokenizer = cls([utf8(piece) for piece in kept], {})
        tokenizer.add_special_tokens((*special_tokens, UNKNOWN))
        tokenizer.counts = {i: counts[piece] for i, piece in enumerate(kept)}
        return tokenizer

    @classmethod
    def split(cls, text: str) -> Iterable[str]:
        """The pieces that stand for one token each; joined they are the text."""
        return text

    def encode_ordinary(self, text: str) -> list[int]:
        ids, unknown = self._ids, self.unknown_id
        return [ids.get(piece, unknown) for piece in self.split(text)]

    def _covered(self, text: str) -> Iterator[tuple[int, bytes]]:
        return ((self._ids.get(piece, self.unknown_id), utf8(piece)) for piece in self.split(text))

    @property
    def unknown_id(self) -> int:
        return self.special_tokens[UNKNOWN]
