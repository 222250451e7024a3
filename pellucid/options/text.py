"""What the verbs of text take: tokenizers, shards, and the look for mistakes in data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from pellucid.options.base import Files, Options


@dataclass(frozen=True)
class TokenizerTrain(Options):
    """Train a tokenizer on text files and save it in Hugging Face's format."""

    files: Files = ()
    """Files, folders, patterns as `pellucid encode` takes them; - is standard input."""
    out: Path = field(kw_only=True)
    """Folder to write."""
    kind: Literal["bpe", "char", "word"] = "bpe"
    """Byte-level byte pairs, characters or words."""
    vocab_size: int = 4096
    """Size of the vocabulary, special tokens not counted."""
    pattern: Literal["gpt2", "cl100k"] = "gpt2"
    """How text is cut into pieces before byte pairs are merged (llama.cpp knows both)."""
    special_tokens: tuple[str, ...] = ()
    """More special tokens than the ones for the end of a text and for conversations."""
    text_field: str | None = None
    """The column or key that holds the text; found by its name where it is not given."""
    dataset: str = ""
    """A data set of Hugging Face `datasets`, a name or a folder, streamed (pip install 'pellucid[data]')."""


@dataclass(frozen=True)
class TokenizerShow(Options):
    """Show how a text falls into tokens: in colour on a terminal, else with | between them."""

    text: Positional[Annotated[str, arg(metavar="TEXT")]]
    """Any text (- is standard input)."""
    tokenizer: Annotated[tuple[str, ...], UseAppendAction] = ()
    """A folder with a tokenizer, its file, or gpt2; may be given again. Without it: words, characters and gpt2."""
    kinds: bool = False
    """Show words and characters, too."""
    tree: bool = False
    """Draw how the first words were merged, byte by byte."""


@dataclass(frozen=True)
class TokenizerReport(Options):
    """Compare tokenizers, and GPT-2's where it is at hand, over kinds of text: prose, code, numbers, scripts, emoji."""

    tokenizers: Positional[Annotated[tuple[str, ...], arg(metavar="TOKENIZER…", help_behavior_hint="(required)")]]
    """Folders with tokenizers, their files, or gpt2."""
    text: Annotated[tuple[Path, ...], arg(metavar="FILE…")] = ()
    """Own texts to compare on, beside the embedded samples."""


@dataclass(frozen=True)
class TokenizerExport(Options):
    """Write a tokenizer in another format, so that other tools give the same ids."""

    tokenizer: Positional[Annotated[str, arg(metavar="TOKENIZER")]]
    """A folder with a tokenizer, a tokenizer's file, or gpt2."""
    to: Literal["tokenizer.json", "vocab-merges", "tiktoken"]
    """Hugging Face's tokenizer.json, GPT-2's vocab.json + merges.txt, or tiktoken's ranks."""
    out: Path
    """Folder to write; for tiktoken a file NAME.tiktoken."""


@dataclass(frozen=True)
class Encode(Options):
    """Turn text into memory-mapped token shards, split into train, val and test by document."""

    files: Files = ()
    """Files, folders, patterns (txt, md, jsonl, json, csv, tsv, parquet; gz or zst of these); - is standard input."""
    out: Path = field(kw_only=True)
    """Folder to write; an interrupted run goes on where it was."""
    tokenizer: str = "gpt2"
    """A folder with a tokenizer, or gpt2 (fetched from the hub, where PELLUCID_DATA does not have it)."""
    workers: int = 0
    """Threads; 0 is one for each core. The shards are the same for any number."""
    engine: Literal["threads", "ray"] = "threads"
    """threads: this machine; ray: all machines of a Ray cluster, on a folder that they share."""
    val: float = 0.05
    """Share of the documents for validation."""
    test: float = 0.05
    """Share of the documents for the test."""
    seed: int = 0
    """Another seed holds out other documents."""
    text_field: str | None = None
    """The column or key that holds the text; found by its name where it is not given."""
    strip_gutenberg: Literal["auto", "yes", "no"] = "auto"
    """Leave out Project Gutenberg's header and footer: where they are found, everywhere, never."""
    dataset: str = ""
    """A data set of Hugging Face `datasets`, a name or a folder, streamed (pip install 'pellucid[data]')."""


@dataclass(frozen=True)
class Doctor(Options):
    """What is in data files and what to mend there; without a file, the machine and the install."""

    files: Files = ()
    """Files or folders with text, labelled texts or instructions (- is standard input)."""
    against: Path | None = None
    """Another file: texts that are in both, exactly or nearly, are counted."""
    tokenizer: str = ""
    """A folder with a tokenizer, or gpt2, to give lengths in tokens, too."""
    context_length: int = 0
    """Count the documents that are longer than this many tokens."""
