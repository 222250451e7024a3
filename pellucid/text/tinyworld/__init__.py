"""tinyworld: a seeded generator of a small English world, of any size, written for this project.

It makes the embedded corpus: documents to learn the language from, instructions whose answers a program can check, and
text messages to classify. All three streams are endless and lazy, and each item carries the split that its content
belongs to, so that nothing of the test part is ever in the train part, whatever the seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pellucid.text.tinyworld.dialogues import dialogue
from pellucid.text.tinyworld.dice import Dice, split_of
from pellucid.text.tinyworld.facts import fact_sheet
from pellucid.text.tinyworld.spam import Message, messages
from pellucid.text.tinyworld.stories import story
from pellucid.text.tinyworld.tasks import FAMILIES, Instruction, instructions, is_right

__all__ = ["FAMILIES", "Document", "Instruction", "Message", "documents", "instructions", "is_right", "messages"]

_KINDS: Final = (("story", story, 0.34), ("facts", fact_sheet, 0.33), ("dialogue", dialogue, 0.33))


@dataclass(frozen=True)
class Document:
    """A text of the world, with the split of its content and its exact surprisal, -log p(text), in nats."""

    text: str
    kind: str  # "story" | "facts" | "dialogue"
    split: str  # "train" | "val" | "test"
    nats: float


def documents(seed: int) -> Iterator[Document]:
    """Endless documents; the same seed gives the same ones. Of all contents, 5 % are val and 5 % are test."""
    dice = Dice(f"documents {seed}")
    while True:
        dice.restart()
        kind, make, _ = dice.choose(_KINDS, [weight for _, _, weight in _KINDS])
        text, key = make(dice)
        yield Document(text, kind, split_of(f"{kind}|{key}", 0.05), dice.nats)
