"""GPT-2's own tokenizer files: the alphabet that writes bytes as visible characters, vocab.json and merges.txt.

The same two files are called encoder.json and vocab.bpe in OpenAI's release. Both names are read here. They don't
say how text is split or what is special: that is GPT-2's pattern, and what looks like <…> or […] and no merge makes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

import regex

from pellucid.runtime import DataError, data_folder, problem, read_json, sha256, write_json, write_text
from pellucid.text.bpe import BPETokenizer
from pellucid.text.pieces import PATTERNS
from pellucid.text.tokenizer import END_OF_TEXT, Tokenizer

GPT2_SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
FILE_PAIRS = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))
LOOKS_SPECIAL = regex.compile(r"<.+>|\[.+\]")


@functools.cache
def byte_alphabet() -> tuple[str, ...]:
    """Byte → the character that stands for it: itself where visible in Latin-1, else one from U+0100 on."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [value for value in range(256) if value not in visible]
    return tuple(chr(value) if value in visible else chr(256 + hidden.index(value)) for value in range(256))


@functools.cache
def _byte_of() -> dict[str, int]:
    return {character: value for value, character in enumerate(byte_alphabet())}


def spell(token: bytes) -> str:
    """A token's bytes in GPT-2's visible alphabet, as its files write them."""
    alphabet = byte_alphabet()
    return "".join(alphabet[value] for value in token)


def unspell(token: str, where: Path) -> bytes:
    """The bytes of a token written in that alphabet. DataError for a character that is not in it."""
    byte_of = _byte_of()
    try:
        return bytes(byte_of[character] for character in token)
    except KeyError as error:
        found = f"the token {token!r}, whose {error.args[0]!r} stands for no byte"
        advice = "This is no byte-level BPE; use a tokenizer of GPT-2's kind."
        raise DataError(problem(where, found, "tokens in GPT-2's byte alphabet", advice)) from error


def gpt2_if_at_hand() -> BPETokenizer | None:
    """GPT-2's tokenizer as OpenAI released it, where PELLUCID_DATA has it. DataError where its files are damaged."""
    root = data_folder()
    if root is None or not all((root / "gpt2" / name).is_file() for name in GPT2_SHA256):
        return None
    folder = root / "gpt2"
    for name, expected in GPT2_SHA256.items():
        if (found := sha256(folder / name)) != expected:
            advice = "The file is damaged or another one; fetch it again."
            raise DataError(problem(folder / name, f"SHA-256 {found}", expected, advice))
    return load_file_pair(folder / "encoder.json", folder / "vocab.bpe")


def spelt(tokenizer: Tokenizer) -> tuple[dict[str, int], list[str]]:
    """A BPE's vocabulary by id, and its merges as "left right", as both its file formats write them."""
    spelling = {token_id: spell(token) for token_id, token in tokenizer.ordinary_tokens().items()}
    names = {token_id: name for name, token_id in tokenizer.special_tokens.items()}
    merges = [f"{spelling[left]} {spelling[right]}" for left, right in tokenizer.merges()]
    return {token: token_id for token_id, token in sorted((spelling | names).items())}, merges


def save_file_pair(tokenizer: Tokenizer, folder: Path) -> None:
    """Write vocab.json and merges.txt. DataError where they could not say which ids the tokenizer gives."""
    expected, advice = "GPT-2's split pattern and special tokens like <|name|>", "Keep it as tokenizer.json."
    if tokenizer.kind != "bpe":
        raise DataError(problem(folder, f"a {tokenizer.kind} tokenizer to write", "byte-level BPE", advice))
    if tokenizer.pattern != PATTERNS["gpt2"]:
        raise DataError(problem(folder, "another split pattern to write", expected, advice))
    if plain := [name for name in tokenizer.special_tokens if not LOOKS_SPECIAL.fullmatch(name)]:
        raise DataError(problem(folder, f"the special token {plain[0]!r} to write", expected, advice))
    vocabulary, merges = spelt(tokenizer)
    write_json(folder / "vocab.json", vocabulary)
    write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *merges, ""]))


def find_file_pair(folder: Path) -> tuple[Path, Path] | None:
    """The vocabulary and the merges in `folder`, under either pair of names."""
    for vocabulary, merges in FILE_PAIRS:
        if (folder / vocabulary).is_file() and (folder / merges).is_file():
            return folder / vocabulary, folder / merges
    return None


def load_file_pair(vocabulary: Path, merges: Path) -> BPETokenizer:
    """A tokenizer from a vocabulary file and a merges file. DataError where they are damaged or don't fit."""
    ids = check_vocabulary(read_json(vocabulary), vocabulary)
    pairs = parse_merges(_merge_lines(merges), merges)
    byte_of = _byte_of()
    made = {left + right for left, right in pairs} | set(byte_of)
    special = {token: token_id for token, token_id in ids.items() if token not in made}
    for token in special:
        if not LOOKS_SPECIAL.fullmatch(token):
            found = f"the token {token!r}, which no merge in {merges.name} makes"
            advice = "One of the two files is cut short or from another tokenizer."
            raise DataError(problem(vocabulary, found, "a merge for each token", advice))
    return build_bpe(ids, pairs, special, "gpt2", vocabulary)


def build_bpe(
    ids: Mapping[str, int], merges: Iterable[tuple[str, str]], special: Mapping[str, int], pattern: str, where: Path
) -> BPETokenizer:
    """A BPETokenizer from tokens and merges as files spell them; `special` are those of `ids` that are special."""
    table = [b""] * len(ids)
    for token, token_id in ids.items():
        table[token_id] = token.encode() if token in special else unspell(token, where)
    pairs: list[tuple[int, int]] = []
    for number, (left, right) in enumerate(merges, 1):
        for part in (left, right, left + right):
            if part not in ids or part in special:
                found = f"merge {number:,} ({left!r} with {right!r}), but no token {part!r}"
                advice = "Vocabulary and merges don't belong together, or one is damaged."
                raise DataError(problem(where, found, "merges of tokens in the vocabulary", advice))
        pairs.append((ids[left], ids[right]))
    for character in byte_alphabet():
        if character not in ids:
            found = f"no token for the byte {_byte_of()[character]:#04x} ({character!r})"
            raise DataError(problem(where, found, "all 256 bytes", "This is no byte-level BPE, or it is damaged."))
    tokenizer = BPETokenizer(table, pairs, special, pattern)
    if END_OF_TEXT not in special and len(special) == 1:
        tokenizer.end_of_text_name = next(iter(special))
    return tokenizer


def check_vocabulary(vocabulary: object, where: Path) -> dict[str, int]:
    """A vocabulary as read from JSON, found to be token → id with the ids 0 to n-1, each once."""
    advice = "The file is damaged or of another kind."
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise DataError(problem(where, type(vocabulary).__name__, "an object: token to id", advice))
    for token, token_id in vocabulary.items():
        if not isinstance(token_id, int) or isinstance(token_id, bool):
            raise DataError(problem(where, f"{token!r} with the id {token_id!r}", "a whole number", advice))
    used = sorted(vocabulary.values())
    for expected, found in enumerate(used):
        if expected != found:
            what = f"the id {found} where {expected} comes next"
            raise DataError(problem(where, what, f"the ids 0 to {len(used) - 1}, each once", advice))
    return vocabulary


def _merge_lines(path: Path) -> list[object]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise DataError(problem(path, "no file", "BPE merges", "Check the path.")) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            problem(path, f"an unreadable file ({error})", "BPE merges in UTF-8", "Fetch it again.")
        ) from error
    if lines and lines[0].startswith("#version"):
        lines = lines[1:]
    while lines and not lines[-1].strip():
        lines.pop()
    return list(lines)


def parse_merges(lines: Iterable[object], where: Path) -> list[tuple[str, str]]:
    """Merges as "left right" or [left, right], both of which are written by tools of today."""
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        parts = line.split(" ") if isinstance(line, str) else line
        if not (isinstance(parts, list) and len(parts) == 2 and all(isinstance(p, str) and p for p in parts)):
            advice = "The file is damaged or of another kind."
            raise DataError(problem(where, f"{line!r} as merge {number:,}", "two tokens", advice))
        pairs.append((parts[0], parts[1]))
    return pairs
