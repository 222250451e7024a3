"""What every verb takes, and what the one that does everything takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

RunFolder = Positional[Annotated[Path, arg(metavar="RUN")]]
RunFolders = Positional[Annotated[tuple[Path, ...], arg(metavar="RUN…", help_behavior_hint="(required)")]]
Files = Positional[Annotated[tuple[Path, ...], arg(metavar="FILE…", help_behavior_hint="(optional)")]]


@dataclass(frozen=True)
class Options:
    """What every verb takes."""

    json: bool = field(default=False, kw_only=True)
    """Print one JSON object on stdout."""


@dataclass(frozen=True)
class Quickstart(Options):
    """All three stages end to end, then a report."""

    out: Path = Path("runs/quickstart")
    """Folder for everything that is made; run again, it goes on where it was."""
    text: Annotated[tuple[Path, ...], arg(metavar="FILE…")] = ()
    """Own text to pretrain on (txt, md, jsonl, csv, folders …); without it, the embedded corpus."""
    labels: Path | None = None
    """Own labelled texts for the classifier (csv, tsv, jsonl, json, or a folder); without it, the embedded messages."""
    instructions: Path | None = None
    """Own instructions with answers (json, jsonl, csv, tsv); without it, the embedded ones."""
    minutes: float = 0.0
    """Time to aim at; more minutes, a better model. 0 is 5.2 with the embedded corpus and 18 with own text."""
    seed: int = 0
    """Seed of everything that is random."""
