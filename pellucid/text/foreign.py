"""Tokenizers of released models that ours cannot be (normalised text, SentencePiece's bytes), behind the same face.

The library `tokenizers`, an extra, reads their tokenizer.json and gives the ids; what is special stays in our hands, so
that a text cannot speak as the assistant here either. The file is kept as it is, but for special tokens that are added.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pellucid.runtime import DataError, problem
from pellucid.text.content import extra
from pellucid.text.gpt2_files import unspell
from pellucid.text.pieces import utf8
from pellucid.text.tokenizer import Tokenizer

Json = dict[str, Any]
BYTE = re.compile("<0x([0-9A-F]{2})>")


class ForeignTokenizer(Tokenizer):
    """Byte pairs of any make, by their own rules."""

    kind: ClassVar[str] = "foreign"
    pattern: str = ""

    def __init__(self, content: Json, ids: Mapping[str, int], special: Mapping[str, int], where: Path) -> None:
        """`content` is a tokenizer.json, `ids` all its tokens, `special` the added ones among them."""
        library = extra("tokenizers", f"the tokenizer in {where}", "foreign")
        decoder = _steps(content.get("decoder"), "decoders")
        of_bytes = any(step.get("type") == "ByteLevel" for step in decoder)
        table = [b""] * len(ids)
        for token, token_id in ids.items():
            table[token_id] = token.encode() if token in special else _bytes_of(token, of_bytes, where)
        super().__init__(table, special)
        self.content = content
        self._strips = any(step.get("type") in ("Strip", "Metaspace") for step in decoder)  # a space before the text
        bare = content | {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        try:
            self._library = library.Tokenizer.from_str(json.dumps(bare))
        except Exception as error:  # of no class of its own
            found = f"a tokenizer that the library tokenizers cannot read ({str(error)[:200]})"
            raise DataError(problem(where, found, "a whole one", "The file is damaged; fetch it again.")) from error

    def encode_ordinary(self, text: str) -> list[int]:
        utf8(text)  # refuses lone surrogates
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids

    def encode_arrays(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        for text in texts:
            utf8(text)
        encoded = self._library.encode_batch(list(texts), add_special_tokens=False)
        return [np.array(one.ids, dtype=np.uint32) for one in encoded]

    def _covered(self, text: str) -> Iterator[tuple[int, bytes]]:
        """Where several tokens share a character, the first of them covers it; the last one covers the rest."""
        encoded = self._library.encode(text, add_special_tokens=False)
        done, last = 0, len(encoded.ids) - 1
        for number, (token, (_, end)) in enumerate(zip(encoded.ids, encoded.offsets, strict=True)):
            end = len(text) if number == last else max(done, end)
            yield token, utf8(text[done:end])
            done = end

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """As every tokenizer's, but for the space that some put before a text."""
        text = super().decode(ids, skip_special)
        return text[1:] if self._strips and text.startswith(" ") else text

    def add_special_tokens(self, names: Iterable[str]) -> int:
        known = set(self.special_tokens)
        count = super().add_special_tokens(names)
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        new = [
            {"id": token, "content": name, **flags} for name, token in self.special_tokens.items() if name not in known
        ]
        self.content = self.content | {"added_tokens": [*(self.content.get("added_tokens") or []), *new]}
        return count

    def _key(self, token: bytes) -> str | bytes:
        return token

    def fingerprint(self) -> str:
        """SHA-256 over all that decides ids."""
        decisive = [self.content.get(name) for name in ("normalizer", "pre_tokenizer", "model", "added_tokens")]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def _bytes_of(token: str, of_bytes: bool, where: Path) -> bytes:
    """What a token stands for: in GPT-2's alphabet of bytes, or as SentencePiece writes it."""
    if of_bytes:
        return unspell(token, where)
    byte = BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("\u2581", " ").encode()


def _steps(step: Any, name: str) -> list[Json]:
    """A step of a tokenizer.json, or those of a sequence of them."""
    steps = step.get(name, [step]) if isinstance(step, dict) else []
    return [one for one in steps if isinstance(one, dict)] if isinstance(steps, list) else []
