"""The one face of every tokenizer: text in, token ids out, and back without loss.

Three kinds stand behind it, each adding one idea to the one before: `character.py` (a token is a character), `word.py`
(a token is a word), `bpe.py` (a token is a frequent run of bytes, learnt from text; nothing is ever unknown).
Unlike most libraries, special tokens such as <|endoftext|> are recognised only where the caller allows them: text that
merely looks like one stays text, so that a document cannot end itself and a user cannot speak as the assistant.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray

from pellucid.runtime import DataError, inform, problem

if TYPE_CHECKING:
    from pellucid.text.compiled.decoding import FastDecoder

END_OF_TEXT = "<|endoftext|>"
UNKNOWN = "<|unk|>"
LONG = 4096  # ids; from here on decoding them compiled pays
SPECIAL_TOKENS = (END_OF_TEXT, "<|system|>", "<|user|>", "<|assistant|>")
Format = Literal["tokenizer.json", "vocab-merges", "tiktoken"]


class Piece(NamedTuple):
    """One token of a text, to look at: its id, the text it stands for, and the bytes of the text it covers."""

    id: int
    text: str  # a token that is part of a character shows as U+FFFD
    start: int  # offsets into the text's UTF-8 bytes
    end: int


class StreamDecoder:
    """Decodes ids one at a time, as a model makes them, and holds back a character until all its bytes are there."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The text that became certain with this token (often a word, sometimes nothing yet)."""
        return self._utf8.decode(self._tokenizer.token_bytes(token))

    def flush(self) -> str:
        """What is left at the end: empty, or U+FFFD where the last character never became whole."""
        return self._utf8.decode(b"", final=True)


class Tokenizer(ABC):
    """Text to ids and back. Ids run from 0 to `vocab_size - 1`; `special_tokens` maps their names to ids."""

    kind: ClassVar[str]
    pattern: str  # the regular expression that cuts text into pieces before anything else

    def __init__(self, tokens: Sequence[bytes], special_tokens: Mapping[str, int]) -> None:
        """`tokens` is the whole table, id → bytes; a special token stands in it with the bytes of its name."""
        self._tokens = list(tokens)
        self.special_tokens: dict[str, int] = dict(special_tokens)
        self.counts: dict[int, int] = {}  # id → how often training met it; empty where that is not known (files)
        self.end_of_text_name = END_OF_TEXT
        self.begin_of_text_name = ""  # empty: a text begins with what ends the one before it
        self._decoder: FastDecoder | None = None
        self.chat_template: str | None = None
        self.model_max_length: int | None = None

    # ------------------------------------------------------------ text → ids

    @abstractmethod
    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of plain text: no special token is recognised, nothing is said about unknown ones."""

    def encode(self, text: str, allowed_special: Collection[str] = ()) -> list[int]:
        """Ids of `text`. Names in `allowed_special` (or "all") are recognised in it as special tokens.

        Raises DataError for a name that is no special token of this tokenizer, and for text with lone surrogates.
        """
        ids = self._encode_with_special(text, self._allowed(allowed_special))
        self._mention_unknown(ids.count(self.unknown_id) if self.unknown_id is not None else 0, len(ids))
        return ids

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Ids of many texts; special tokens are not recognised; unknown ones are counted in one message."""
        arrays = self.encode_arrays(list(texts))
        if self.unknown_id is not None:
            unknown = sum(int((ids == self.unknown_id).sum()) for ids in arrays)
            self._mention_unknown(unknown, sum(len(ids) for ids in arrays))
        return [ids.tolist() for ids in arrays]

    def encode_stream(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """As `encode_batch`, but a text at a time, as they come: for more texts than memory holds."""
        unknown = total = 0
        for text in texts:
            ids = self.encode_ordinary(text)
            unknown += ids.count(self.unknown_id) if self.unknown_id is not None else 0
            total += len(ids)
            yield ids
        self._mention_unknown(unknown, total)

    def encode_arrays(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """`encode_ordinary` of many texts as arrays: the way for much text."""
        return [np.array(self.encode_ordinary(text), dtype=np.uint32) for text in texts]

    def _encode_with_special(self, text: str, allowed: Sequence[str]) -> list[int]:
        ids: list[int] = []
        for part in _cut_at(text, allowed):
            if part in allowed:
                ids.append(self.special_tokens[part])
            else:
                ids.extend(self.encode_ordinary(part))
        return ids

    def _allowed(self, names: Collection[str]) -> list[str]:
        if names == "all":
            return list(self.special_tokens)
        for name in names:
            if name not in self.special_tokens:
                known = ", ".join(self.special_tokens) or "none"
                raise DataError(problem("allowed_special", repr(name), f"special tokens ({known})", "Add it first."))
        return list(names)

    def _mention_unknown(self, count: int, total: int) -> None:
        if count:
            inform(f"{count:,} of {total:,} tokens are not in the {self.kind} vocabulary and became {UNKNOWN}.")

    # ------------------------------------------------------------ ids → text

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of `ids`; bytes that are no valid UTF-8 become U+FFFD. DataError for an id out of range."""
        hidden = set(self.special_tokens.values()) if skip_special else set()
        ids = ids if isinstance(ids, list | np.ndarray) else list(ids)
        joined = self.join_readably(ids, hidden) if len(ids) < LONG else self._join_fast(ids, hidden)
        return joined.decode("utf-8", errors="replace")

    def decode_batch(self, batch: Iterable[Iterable[int]], skip_special: bool = False) -> list[str]:
        """The text of each of many lists of ids, as `decode` gives it."""
        return [self.decode(ids, skip_special) for ids in batch]

    def join_readably(self, ids: Iterable[int], hidden: Collection[int] = ()) -> bytes:
        """The bytes of all `ids` but the hidden ones, one behind the other: the oracle of the fast way."""
        return b"".join(self.token_bytes(i) for i in ids if i not in hidden)

    def _join_fast(self, ids: list[int] | NDArray[Any], hidden: Collection[int]) -> bytes:
        if self._decoder is None or self._decoder.vocab_size != self.vocab_size:
            from pellucid.text.compiled.decoding import FastDecoder

            self._decoder = FastDecoder(self._tokens)
        joined = self._decoder.join(ids, hidden)
        return joined if joined is not None else self.join_readably(ids, hidden)  # which names the id out of range

    def token_bytes(self, token: int) -> bytes:
        """The bytes that one id stands for. DataError for an id out of range."""
        if not 0 <= token < len(self._tokens):
            found = f"the token id {token}"
            expected = f"0 to {len(self._tokens) - 1:,} (this tokenizer's vocabulary)"
            raise DataError(problem("decode", found, expected, "The ids come from another tokenizer."))
        return self._tokens[token]

    def stream(self) -> StreamDecoder:
        """A decoder for ids that arrive one at a time."""
        return StreamDecoder(self)

    # ------------------------------------------------------------ to look at

    def pieces(self, text: str, allowed_special: Collection[str] = ()) -> list[Piece]:
        """Each token of `text` with its id, its own text, and the bytes it covers."""
        pieces: list[Piece] = []
        start = 0
        allowed = self._allowed(allowed_special)
        for part in _cut_at(text, allowed):
            covered: Iterable[tuple[int, bytes]] = self._covered(part)
            if part in allowed:
                covered = [(self.special_tokens[part], part.encode())]
            for token, content in covered:
                pieces.append(Piece(token, content.decode("utf-8", "replace"), start, start + len(content)))
                start += len(content)
        return pieces

    def offsets(self, text: str, allowed_special: Collection[str] = ()) -> list[tuple[int, int]]:
        """For each token of `text`, the (start, end) of the UTF-8 bytes that it covers."""
        return [(piece.start, piece.end) for piece in self.pieces(text, allowed_special)]

    def _covered(self, text: str) -> Iterator[tuple[int, bytes]]:
        """Each id of plain text with the bytes of the text that it covers (another text than its own if unknown)."""
        return ((token, self._tokens[token]) for token in self.encode_ordinary(text))

    # ------------------------------------------------------------ the vocabulary

    @property
    def vocab_size(self) -> int:
        """How many ids there are, special tokens included."""
        return len(self._tokens)

    def vocab(self) -> dict[str | bytes, int]:
        """Token → id: bytes for BPE's tokens, text for words and characters, the name for special tokens."""
        table: dict[str | bytes, int] = {self._key(token): i for i, token in self.ordinary_tokens().items()}
        return table | dict(self.special_tokens)

    def _key(self, token: bytes) -> str | bytes:
        return token.decode("utf-8")

    def ordinary_tokens(self) -> dict[int, bytes]:
        """Id → bytes of all tokens but the special ones."""
        special = set(self.special_tokens.values())
        return {i: token for i, token in enumerate(self._tokens) if i not in special}

    @property
    def end_of_text(self) -> int:
        """The id that ends a document and an answer. DataError where there is none."""
        if self.end_of_text_name not in self.special_tokens:
            found = f"no special token {self.end_of_text_name}"
            raise DataError(problem("tokenizer", found, "one that ends a text", "add_special_tokens can add it."))
        return self.special_tokens[self.end_of_text_name]

    @property
    def begin_of_text(self) -> int:
        """The id with which a text begins: in GPT-2 and ours the one that ends the text before it."""
        return self.special_tokens[self.begin_of_text_name] if self.begin_of_text_name else self.end_of_text

    @property
    def unknown_id(self) -> int | None:
        """The id of what is not in the vocabulary; None where nothing is ever unknown (BPE)."""
        return None

    def add_special_tokens(self, names: Iterable[str]) -> int:
        """Append special tokens; those already there stay as they are. Returns how many are new."""
        new = [name for name in dict.fromkeys(names) if name not in self.special_tokens]
        ordinary = set(self.ordinary_tokens().values())
        for name in new:
            if not name or name.encode() in ordinary:
                found = "an empty name" if not name else f"{name!r}, an ordinary token"
                raise DataError(problem("special tokens", found, "a new name", "Choose another, such as <|name|>."))
        for name in new:
            self.special_tokens[name] = len(self._tokens)
            self._tokens.append(name.encode())
        return len(new)

    def merges(self) -> list[tuple[int, int]]:
        """BPE's merges as pairs of ids, first learnt first; empty for the other kinds."""
        return []

    def fingerprint(self) -> str:
        """SHA-256 over all that decides ids: kind, pattern, tokens, merges, special tokens."""
        content: Any = [
            self.kind,
            self.pattern,
            [token.hex() for token in self._tokens],
            self.merges(),
            sorted(self.special_tokens.items()),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    # ------------------------------------------------------------ files

    def save(self, where: str | Path, to: Format = "tokenizer.json") -> None:
        """Write tokenizer.json, tokenizer_config.json (as `transformers` reads them) and vocab.txt into a folder.

        BPE can also go `to` "vocab-merges" (a folder with GPT-2's pair, vocab.json + merges.txt) and to "tiktoken" (a
        file NAME.tiktoken: ranks alone, without special tokens). DataError for what a format cannot say.
        """
        from pellucid.text.tokenizer_format import save_tokenizer

        save_tokenizer(self, Path(where), to)

    @staticmethod
    def load(where: str | Path) -> Tokenizer:
        """From "gpt2", a run folder, a tokenizer.json, a folder with vocab.json + merges.txt, or tiktoken's ranks.

        What is no path here and looks like owner/name is a model of the hub: fetched once and kept, as by `GPT.load`.
        So is "gpt2", where PELLUCID_DATA does not have its files.

        Ranks don't say how text is split, so the name must: r50k_base.tiktoken, cl100k_base.tiktoken, FILE#gpt2, or
        FILE#cl100k.
        Raises DataError for a file that is missing, damaged or foreign, naming it and what is wrong.
        """
        from pellucid.text.tokenizer_format import load_tokenizer

        return load_tokenizer(where)


def _cut_at(text: str, names: Collection[str]) -> list[str]:
    """`text` cut before and after each of `names` (the longest where several fit); no empty parts."""
    if not names:
        return [text] if text else []
    longest_first = sorted(names, key=len, reverse=True)
    return [part for part in regex.split("(" + "|".join(map(regex.escape, longest_first)) + ")", text) if part]
