"""One tiny tokenizer and one tiny model for all tests of generation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pellucid.model.gpt import GPT
from pellucid.text.bpe import BPETokenizer
from tests.generation.lively import lively_model


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Models this small are quicker on one thread, by far on a machine that others use, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> BPETokenizer:
    return BPETokenizer.train(["the red fox has a lamp and the blue fox has none of it. " * 5], vocab_size=280)


@pytest.fixture(scope="session")
def model(tokenizer: BPETokenizer) -> GPT:
    return lively_model(tokenizer.vocab_size, context_length=32)
