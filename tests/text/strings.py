"""Strings of all kinds, for comparing tokenizers: every plane of Unicode, control characters, white space, endings."""

from __future__ import annotations

import random
from collections.abc import Iterator

ENDINGS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'rE", "'ſ", "’s", "'", "''s"]
SPACES = [" ", "  ", "\n", "\r\n", "\r", "\t", "\u00a0", "\u2003", "\u3000", "\u0085", "\u2028", "\x1c", "\x0b", " \n "]
EMOJI = ["🙂", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇫🇷", "👍🏽", "1️⃣", "❤️"]
SPECIAL = ["<|endoftext|>", "<|user|>", "<s>", "[UNK]", "\x00", "\x7f", "\ufeff", "\ufffd", "\u200d", "\u0301"]
WORDS = [
    "the",
    "The",
    "fox",
    "ferry",
    "don",
    "it",
    "naïve",
    "straße",
    "ελλάς",
    "привет",
    "مرحبا",
    "नमस्ते",
    "你好",
    "日本語",
    "한국어",
]
SIGNS = [*".,;:!?()[]{}<>|/\\\"'`~@#$%^&*-_=+", "—", "…", "«", "€", "∑"]
PLANES = [(0x20, 0x7F), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0x10000), (0x10000, 0x20000), (0x20000, 0x110000)]


def strings(count: int, seed: int = 0) -> Iterator[str]:
    """`count` strings of up to about forty parts each; the same seed gives the same ones."""
    chance = random.Random(seed)
    for _ in range(count):
        yield "".join(_part(chance) for _ in range(int(chance.expovariate(1 / 8)) % 40))


def _part(chance: random.Random) -> str:
    kind = chance.randrange(12)
    if kind < 3:
        return chance.choice(WORDS)
    if kind < 6:
        return chance.choice(SPACES if kind == 5 else [" ", " ", "\n"])
    if kind == 6:
        return chance.choice(ENDINGS)
    if kind == 7:
        return str(chance.randrange(10 ** chance.randint(1, 9))) + chance.choice(["", "²", "Ⅷ", "٣", "½"])
    if kind == 8:
        return chance.choice(SIGNS) * chance.choice([1, 1, 1, 2, 5, 20])
    if kind == 9:
        return chance.choice(EMOJI + SPECIAL)
    if kind == 10:
        return chance.choice("aZé你 \n1") * chance.choice([2, 3, 17, 50, 200])
    low, high = chance.choice(PLANES)
    return "".join(chr(chance.randrange(low, high)) for _ in range(chance.randint(1, 4)))
