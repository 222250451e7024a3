"""The lines of code behind what a page shows: named functions of the package, served as text."""

from __future__ import annotations

import inspect
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from pellucid.runtime import DataError, problem

ROOT = Path(__file__).parents[1]
NAMES = {  # page → the functions that compute what it shows
    "tokens": "text.bpe:BPETokenizer.merge_piece text.word:WordTokenizer.split text.character:CharacterTokenizer "
    "text.look:merge_tree",
    "embeddings": "model.gpt:GPT.hidden model.positions:LearnedPositions.encode model.embeddings:plane "
    "model.embeddings:nearest_tokens",
    "attention": "model.attention:CausalAttention.queries_keys_values model.attention:attention_scores "
    "model.attention:attention_weights model.attention:CausalAttention.attend",
    "block": "model.block:Block.forward model.layers:LayerNorm.explicit model.layers:FeedForward.forward",
    "next-word": "model.gpt:GPT.logits generation.sampling:next_token generation.sampling:choose "
    "see.trace:Trace.words_after see.trace:switched_off",
    "training": "pretrain.step:train_step pretrain.loss:token_loss pretrain.fit:Sitting.evaluate",
    "classifier": "finetune.classify:Classifier.forward finetune.classify:decide "
    "finetune.calibration:best_threshold finetune.calibration:calibration",
    "assistant": "finetune.conversation:Conversation.encode generation.continuous:Continuous.step",
}


class Place(NamedTuple):
    """Where a function stands: its name to show, the file, and its first and last line."""

    name: str
    file: str
    first: int
    last: int

    @property
    def link(self) -> str:
        """Its address in the workbench."""
        return f"/code/{self.file}?lines={self.first}-{self.last}#L{self.first}"


@cache
def places(page: str) -> tuple[Place, ...]:
    """The functions that compute what a page shows."""
    return tuple(place(name) for name in NAMES[page].split())


def place(name: str) -> Place:
    """`model.gpt:GPT.logits` → where it stands."""
    module_name, _, path = name.partition(":")
    found: object = import_module(f"pellucid.{module_name}")
    for part in path.split("."):
        found = getattr(found, part)
    lines, first = inspect.getsourcelines(found)  # type: ignore[arg-type]
    file = Path(inspect.getsourcefile(inspect.unwrap(found)) or "")  # type: ignore[arg-type]
    return Place(path, file.relative_to(ROOT).as_posix(), first, first + len(lines) - 1)


@cache
def files() -> dict[str, Path]:
    """The package's own source files by the names that links use; no other file can be asked for."""
    return {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}


def code(file: str) -> list[str]:
    """The lines of a source file of the package. DataError for any other name."""
    if file not in files():
        raise DataError(problem("code", "no such file", "a source file of the package", "Follow a link of a page."))
    return files()[file].read_text(encoding="utf-8").split("\n")
