"""All three engines cut text alike, for every character there is: `regex` with our `cut`, `tiktoken`, `tokenizers`."""

from __future__ import annotations

import pytest
import regex
import tiktoken
from tokenizers import Regex, pre_tokenizers

from pellucid.text.bpe import BPETokenizer
from pellucid.text.pieces import cut

CHARACTERS = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
ADVICE = "an engine knows another Unicode than the table in pieces.py; make the table anew"


@pytest.mark.parametrize("what", [r"\p{L}", r"\p{N}", r"\p{M}", r"\s"])
def test_every_character_is_of_the_same_class_in_all_engines(what: str) -> None:
    ours = set(cut(regex.compile(what), CHARACTERS))
    ranks = {bytes([value]): value for value in range(256)}
    encoding = tiktoken.Encoding("bytes", pat_str=what, mergeable_ranks=ranks, special_tokens={})
    assert set(encoding.decode(encoding.encode_ordinary(CHARACTERS))) == ours, ADVICE
    blocks = [CHARACTERS[i : i + 4096] for i in range(0, len(CHARACTERS), 4096)]
    removed = pre_tokenizers.Split(Regex(what), "removed")
    kept = {character for block in blocks for part, _ in removed.pre_tokenize_str(block) for character in part}
    assert set(CHARACTERS) - kept == ours, ADVICE


def test_a_letter_newer_than_unicode_16_is_cut_alike_on_both_paths_of_bpe() -> None:
    text = "a\U000323b0b \U000323b0\U000323b0 a\u088f " * 5
    plain, fast = (BPETokenizer.train([text], 300) for _ in range(2))
    long = text * 400
    assert fast.encode(long) == plain.encode_readably(long)
    assert plain.decode(plain.encode(text)) == text
