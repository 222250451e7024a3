"""Cuts text into pieces with the Unicode that `tiktoken` and `tokenizers` know (16), though `regex` moves on faster.

A newer `regex` takes a newer letter for part of a word where those two see a mere sign: other pieces, other
ids. So newer characters are shown to it as signs. A test compares all characters in the three libraries, and fails when
one of them moves on; a `regex` older than Unicode 16 is not helped by this.
"""

from __future__ import annotations

import functools

import regex

from pellucid.runtime import DataError, problem

# How text is cut into pieces. Both are known to llama.cpp; the second is cl100k's in the form that Llama 3 ships.
PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}

# Letters, numbers and marks that `regex` 2026.11.15 knows and Unicode 16 does not, in hexadecimal.
NEWER = """
558 58B-58C 5C8-5C9 88F B53-B54 C5C CDC 1ACF-1AF0 208F 209D-209F A7CE-A7CF A7D2 A7D4 A7DD A7E2 A7F1 AB6C-AB6D
107BB-107BF 10940-10959 10EC5-10EC7 10ECB-10ECF 10ED9-10EEE 10EF0-10EFB 11B0A 11B60-11B67 11DB0-11DDB
11DE0-11DE9 11DF0-11DF1 1246F 12475-1247F 12550-12686 16EA0-16EB8 16EBB-16ED3 16FF2-16FF6 187F8-187FF
18CD6-18CDA 18D09-18D20 18D80-18DF2 18E00-19191 191A0-191D2 1B123-1B128 1B168 1D127-1D128 1D250-1D252
1D25B-1D25C 1D25F 1D280-1D281 1D6A6 1DF1F-1DF24 1DF2B-1DF81 1DF90-1DF96 1DFCD-1DFFF 1E6C0-1E6DE 1E6E0-1E6F5
1E6FE-1E6FF 2B73A-2B73F 2B81E 2CEA2-2CEAD 323B0-33479 3D000-3FC3F
"""
SIGN = "\ue000"  # for private use: no letter, number, mark or white space in any Unicode


@functools.cache
def newer_characters() -> frozenset[str]:
    """The characters of NEWER."""
    ranges = (part.partition("-") for part in NEWER.split())
    return frozenset(chr(code) for a, _, b in ranges for code in range(int(a, 16), int(b or a, 16) + 1))


def cut(pattern: regex.Pattern[str], text: str) -> list[str]:
    """All matches of `pattern` in `text`, as an engine that knows Unicode 16 finds them."""
    newer = newer_characters() & set(text)
    if not newer:
        pieces: list[str] = pattern.findall(text)
        return pieces
    shown = text.translate({ord(character): SIGN for character in newer})  # as many characters as `text` has
    return [text[match.start() : match.end()] for match in pattern.finditer(shown)]


def utf8(text: str) -> bytes:
    """The text's bytes. DataError for lone surrogates, which have none; some are Python's for a byte of an argument."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) - 0xDC00
        what = f"the byte 0x{byte:02x}, not UTF-8," if 0x80 <= byte <= 0xFF else "a lone surrogate"
        found = f"{what} at character {error.start:,}"
        raise DataError(problem("text", found, "Unicode text", "Read the file as UTF-8.")) from error
