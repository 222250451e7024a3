"""The word tokenizer: as the character tokenizer, but a token is a word, a punctuation mark or a space.

Each white space character is a token of its own, so that decoding gives the very text back. What was too rare to
be kept becomes <|unk|>: the weakness that byte-level BPE ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import regex

from pellucid.text.character import CharacterTokenizer
from pellucid.text.pieces import cut

# Letters, marks, numbers and _ make words, with apostrophes inside; written without \w, which engines read differently.
WORD = r"[\p{L}\p{M}\p{N}_]+(?:['’][\p{L}\p{M}\p{N}_]+)*|\s|[^\s\p{L}\p{M}\p{N}_]"


class WordTokenizer(CharacterTokenizer):
    """A token is a word, a mark or a white space character."""

    kind: ClassVar[str] = "word"
    pattern: str = WORD

    @classmethod
    def split(cls, text: str) -> Iterable[str]:
        return cut(regex.compile(WORD), text)
