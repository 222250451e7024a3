"""What the tests of the text stage share: a tiny text, a tokenizer trained on it, GPT-2's files where there are any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from pellucid.text.bpe import BPETokenizer
from pellucid.text.tokenizer import Tokenizer

STORY = (
    "Once upon a time there was a red fox who couldn't find 42 grapes.\n\nThe fox said: \"I'll find them, won't I?\"\n"
    "The grapes, the grapes! 1234 grapes hung higher than the fox.  Naïve café — 日本語 🙂.\n"
) * 3


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data; the test that asks for it is skipped where there is none."""
    named = os.environ.get("PELLUCID_DATA")
    folder = Path(named) if named else Path(__file__).parents[3] / "shared" / "data"
    if not (folder / "gpt2" / "vocab.bpe").is_file():
        pytest.skip(f"needs GPT-2's tokenizer files: no {folder / 'gpt2'} (PELLUCID_DATA names the folder)")
    return folder


@pytest.fixture(scope="session")
def gpt2(data_folder: Path) -> Tokenizer:
    return Tokenizer.load(data_folder / "gpt2")


@pytest.fixture(scope="session")
def story() -> str:
    return STORY


@pytest.fixture
def bpe() -> BPETokenizer:
    return BPETokenizer.train([STORY], 300)


@pytest.fixture(scope="session")
def gpt2_of_tiktoken(data_folder: Path) -> tiktoken.Encoding:
    """tiktoken's GPT-2 from local files (get_encoding would download); the pattern is tiktoken's own."""
    folder = data_folder / "gpt2"
    ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
    special = {"<|endoftext|>": 50256}
    return tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
