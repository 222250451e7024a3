"""Where a piece of text ends: the split patterns written out as loops over UTF-8 bytes, for Numba to compile.

A table tells letters, numbers and white space. A test compares the pieces with those of the regular expressions.
The last two functions serve the tables of pieces: up to 16 bytes as two machine words, and a hash of these.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import regex
from numba import njit
from numpy.typing import NDArray

from pellucid.text.compiled import inner
from pellucid.text.pieces import PATTERNS, SIGN, newer_characters

LETTER, NUMBER, SPACE, OTHER = 0, 1, 2, 3  # the classes of characters that the patterns tell apart
LAST_LETTERS = 0x40000  # no plane from here on holds letters, numbers or white space
SHORT = 16  # bytes that make two machine words
WIDEST_READ = 24  # bytes that may be read from a place in the text on, so there are as many zeros behind it

Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]


def pattern_mark(pattern: str) -> bool | None:
    """What `piece_end` knows a pattern by: None for GPT-2's, True for cl100k's.

    Numba leaves out what stands behind a comparison with None before it compiles, so that a process compiles the
    pattern that it uses, and not both.
    """
    return {PATTERNS["gpt2"]: None, PATTERNS["cl100k"]: True}[pattern]


def padded(*texts: bytes) -> Bytes:
    """The texts one behind the other, and zeros up to a whole number of machine words."""
    size = sum(map(len, texts))
    return np.frombuffer(b"".join([*texts, bytes(WIDEST_READ + -size % 8)]), dtype=np.uint8)


@functools.cache
def character_classes() -> Bytes:
    """The class of each Unicode character, as the patterns of `tiktoken` and `tokenizers` see it: (0x110000,) uint8."""
    characters = "".join(map(chr, range(0xD800))) + SIGN * 0x800 + "".join(map(chr, range(0xE000, LAST_LETTERS)))
    shown = characters.translate(dict.fromkeys(map(ord, newer_characters()), SIGN))
    classes = np.full(0x110000, OTHER, dtype=np.uint8)
    for kind, pattern in ((LETTER, r"\p{L}+"), (NUMBER, r"\p{N}+"), (SPACE, r"\s+")):
        for match in regex.finditer(pattern, shown):
            classes[match.start() : match.end()] = kind
    return classes


@inner
def _class_at(data: Any, i: Any, classes: Any) -> Any:
    """The class of the character that begins at byte `i`, and how many bytes it has."""
    byte = np.int64(data[i])
    if byte < 0x80:
        return classes[byte], 1
    if byte < 0xE0:
        return classes[(byte & 0x1F) << 6 | (np.int64(data[i + 1]) & 0x3F)], 2
    if byte < 0xF0:
        return classes[(byte & 0x0F) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6 | (np.int64(data[i + 2]) & 0x3F)], 3
    high = (byte & 0x07) << 18 | (np.int64(data[i + 1]) & 0x3F) << 12
    return classes[high | (np.int64(data[i + 2]) & 0x3F) << 6 | (np.int64(data[i + 3]) & 0x3F)], 4


@njit(inline="always")
def _run_end(data: Any, i: Any, end: Any, kind: Any, classes: Any) -> Any:
    """Where the run of characters of class `kind` that goes on at `i` ends."""
    while i < end:
        byte = data[i]
        if byte < 0x80:  # most are; calling `_class_at` for them too would take half as long again
            if classes[byte] != kind:
                break
            i += 1
        else:
            found, width = _class_at(data, i, classes)
            if found != kind:
                break
            i += width
    return i


@inner
def _space_end(data: Any, start: Any, end: Any, classes: Any) -> Any:
    r"""`\s+(?!\S)|\s+`: all white space up to the end of the text, else all but the last of it, but at least one."""
    i, last = start, start
    while i < end:
        kind, width = _class_at(data, i, classes)
        if kind != SPACE:
            return last if last > start else i
        last = i
        i += width
    return end


@njit(inline="always")
def _gpt2_end(data: Any, i: Any, end: Any, classes: Any) -> Any:
    """Where the piece that begins at byte `i` ends, by GPT-2's pattern."""
    byte = data[i]
    if byte == 39 and i + 1 < end:  # 's 't 'm 'd 're 've 'll
        a, b = data[i + 1], data[i + 2] if i + 2 < end else 0
        if a == 115 or a == 116 or a == 109 or a == 100:
            return i + 2
        if (b == 101 and (a == 114 or a == 118)) or (a == 108 and b == 108):
            return i + 3
    first = i
    if byte == 32 and i + 1 < end:  # a space belongs to the visible run behind it
        i += 1
        byte = data[i]
    kind, width = (classes[byte], 1) if byte < 0x80 else _class_at(data, i, classes)
    if kind == SPACE:
        return _space_end(data, first, end, classes)
    return _run_end(data, i + width, end, kind, classes)


@inner
def _cl100k_end(data: Any, i: Any, end: Any, classes: Any) -> Any:
    """Where the piece that begins at byte `i` ends, by cl100k's pattern."""
    byte = data[i]
    if byte == 39 and i + 1 < end:  # the same endings in capitals too; a long s (C5 BF) is an s there
        a, b = data[i + 1] | 32, (data[i + 2] | 32) if i + 2 < end else 0
        if data[i + 1] < 128 and (a == 115 or a == 116 or a == 109 or a == 100):
            return i + 2
        if data[i + 1] == 0xC5 and data[i + 2] == 0xBF:
            return i + 3
        if (b == 101 and (a == 114 or a == 118)) or (a == 108 and b == 108):
            return i + 3
    kind, width = _class_at(data, i, classes)
    if kind == NUMBER:  # at most three of them
        last = i + width
        for _ in range(2):
            if last < end:
                found, width = _class_at(data, last, classes)
                if found == NUMBER:
                    last += width
        return last
    run, last = kind, i + width
    if kind != LETTER and last < end:
        after, after_width = _class_at(data, last, classes)
        if (after == LETTER and byte != 10 and byte != 13) or (after == OTHER and byte == 32):
            run, last = after, last + after_width
    last = _run_end(data, last, end, run, classes)
    if run == OTHER:
        while last < end and (data[last] == 10 or data[last] == 13):
            last += 1
    elif run == SPACE:
        while last > i and data[last - 1] != 10 and data[last - 1] != 13:
            last -= 1
        if last == i:  # no line end in it
            return _space_end(data, i, end, classes)
    return last


@njit(inline="always")
def piece_end(data: Any, i: Any, end: Any, classes: Any, pattern: Any) -> Any:
    """Where the piece that begins at byte `i` ends."""
    if pattern is None:
        return _gpt2_end(data, i, end, classes)
    return _cl100k_end(data, i, end, classes)


@njit(inline="always")
def two_words(words: Any, i: Any, length: Any) -> Any:
    """The `length` (1 to 16) bytes from byte `i` on as two numbers, zeros behind them."""
    place, shift = i >> 3, np.uint64((i & 7) << 3)
    a, b, c = words[place], words[place + 1], words[place + 2]
    if shift:
        back = np.uint64(64) - shift
        a, b = a >> shift | b << back, b >> shift | c << back
    if length < 8:
        return a & ((np.uint64(1) << np.uint64(length << 3)) - np.uint64(1)), np.uint64(0)
    if length < 16:
        return a, b & ((np.uint64(1) << np.uint64((length - 8) << 3)) - np.uint64(1))
    return a, b


@inner
def mix(a: Any, b: Any) -> Any:
    """A hash of two words; its high bits are the good ones."""
    h = (a ^ (b >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15) + b * np.uint64(0xC2B2AE3D27D4EB4F)
    h ^= h >> np.uint64(32)
    return h * np.uint64(0xD6E8FEB86659FD93)
