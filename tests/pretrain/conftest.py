"""What the tests of pretraining share: small shards, a small shape, and settings that run in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pellucid.config import FitConfig, ModelConfig
from pellucid.text.bpe import BPETokenizer
from pellucid.text.documents import Document
from pellucid.text.shard_writer import write_shards
from pellucid.text.shards import Shards

CONTEXT = 16


def stories(count: int, seed: int) -> list[Document]:
    """Short texts with something to learn in them."""
    dice = np.random.default_rng(seed)
    names, things = ("Anna", "Ben", "Cleo", "Dan"), ("lamp", "fox", "bell", "hat")
    return [
        Document(f"{n} has the {t}. The {t} is with {n}. Where is the {t}? With {n}.\n", f"{seed}.{i}")
        for i, (n, t) in enumerate(zip(dice.choice(names, count), dice.choice(things, count), strict=True))
    ]


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    train = stories(120, 0)
    tokenizer = BPETokenizer.train([document.text for document in train], vocab_size=280)
    splits = {"train": train, "val": stories(6, 1), "test": stories(6, 2)}
    return write_shards(splits, tokenizer, tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture(scope="session")
def shape(shards: Shards) -> ModelConfig:
    """Dropout is on, so that a lost random state would show."""
    return ModelConfig(
        vocab_size=shards.vocab_size, context_length=CONTEXT, d_model=16, n_layers=2, n_heads=2, dropout=0.1
    )


@pytest.fixture
def config() -> FitConfig:
    return FitConfig(steps=12, batch_size=8, dtype="float32", checkpoint_every=4, evaluate_share=0.25, seed=5)


@pytest.fixture(scope="session")
def shape_file(shape: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shape as a settings file for `pellucid pretrain --model`."""
    file = tmp_path_factory.mktemp("shape") / "tiny.toml"
    names = ("context_length", "d_model", "n_layers", "n_heads", "dropout")
    file.write_text("".join(f"{name} = {getattr(shape, name)}\n" for name in names))
    return file
