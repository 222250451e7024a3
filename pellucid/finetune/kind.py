"""What a run folder holds: one answer for the server, which refuses what a run cannot do, and for the workbench."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pellucid.finetune.conversation import lacks
from pellucid.model.formats import is_classifier
from pellucid.model.formats.folder import read_settings
from pellucid.text.tokenizer import Tokenizer

Kind = Literal["language model", "assistant", "classifier", "in training"]


def kind_of(folder: Path) -> Kind:
    """As far as config.json and the tokenizer tell; an assistant talks in our layout. DataError for damaged files."""
    if not (folder / "config.json").is_file() and any((folder / name).exists() for name in ("run.json", "training")):
        return "in training"
    settings = read_settings(folder)
    if is_classifier(settings):
        return "classifier"
    return "language model" if lacks(Tokenizer.load(folder)) else "assistant"
