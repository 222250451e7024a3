"""Instructions with answers, and an honest split of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pellucid.finetune.conversation import Conversation, Message, answered, ask
from pellucid.finetune.records import TURNS, Record, read_records, turns_of
from pellucid.finetune.splits import normalised
from pellucid.runtime import DataError, inform, shown
from pellucid.text.documents import SPLITS


@dataclass(frozen=True)
class Example:
    """An instruction, what it is about, the right answer; its family and split where the file names them."""

    instruction: str
    input: str
    output: str
    family: str = "all"
    split: str = ""
    earlier: tuple[Message, ...] = ()
    """The turns before the instruction, of a conversation of many."""

    @property
    def key(self) -> str:
        """What makes two examples the same for a split: the question with all that was said before it."""
        said = [message.content for message in self.earlier]
        return normalised("\n".join([*said, self.instruction, self.input]))

    def question(self) -> Conversation:
        """The conversation up to where the assistant is to speak."""
        return ask(self.instruction, self.input, self.earlier)

    def whole(self) -> Conversation:
        """The conversation with the right answer."""
        return answered(self.question(), self.output)


Kind = TypeVar("Kind", bound=Example)


def read_instructions(path: Path) -> list[Example]:
    """All examples of a json or jsonl file: Alpaca, ShareGPT, messages, or prompt and completion (records.py).

    DataError names the file, the line and the record of what is broken or missing.
    """
    return [to_example(record) for record in read_records(path)]


def to_example(record: Record) -> Example:
    """A record as an example: the last answer is asked for in a test; those before it are trained, too."""
    *earlier, question, answer = turns_of(record)
    alpaca = not any(key in record.value for key in (*TURNS, "prompt"))
    about = (record.text_of("input") or record.text_of("context")) if alpaca else ""
    return Example(question.content, about, answer.content, *family_and_split(record), tuple(earlier))


def family_and_split(record: Record) -> tuple[str, str]:
    """What a record may say beside its texts: a family of questions, and the split that it belongs to."""
    family, split = record.text_of("family"), record.text_of("split")
    if split and split not in SPLITS:
        raise record.bad(f"split {shown(split)!r}", "train, val or test")
    return family or "all", split


def split_examples(
    examples: Sequence[Kind], val: float = 0.05, test: float = 0.1, seed: int = 0
) -> dict[str, list[Kind]]:
    """Train, val and test without a question in two of them. Splits named by the file are kept, but where it names
    none for val, a part of its train becomes val.
    """
    unique: dict[str, Kind] = {}
    for example in examples:
        unique.setdefault(example.key, example)
    if len(unique) < len(examples):
        inform(f"{len(examples) - len(unique)} of {len(examples)} instructions were there before and are dropped.")
    splits: dict[str, list[Kind]] = {name: [] for name in SPLITS}
    rest = []
    for key, example in unique.items():
        if example.split:
            splits[example.split].append(example)
        else:
            rest.append((hashlib.sha256(f"{seed}\0{key}".encode()).digest(), example))
    rest.sort(key=lambda pair: pair[0])
    n_test, n_val = (max(1, round(share * len(rest))) if rest else 0 for share in (test, val))
    for number, (_, example) in enumerate(rest):
        name = "test" if number < n_test else "val" if number < n_test + n_val else "train"
        splits[name].append(replace(example, split=name))
    if not splits["val"]:
        n_val = min(len(splits["train"]) - 1, max(1, round(val * len(splits["train"]))))
        order = sorted(splits["train"], key=lambda e: hashlib.sha256(f"{seed}\0{e}".encode()).digest())
        splits["val"] = [replace(example, split="val") for example in order[: max(0, n_val)]]
        splits["train"] = order[max(0, n_val) :]
    if not all(splits.values()):
        raise DataError(
            f"{len(unique)} different instructions are too few for a train, a val and a test split: give more."
        )
    return splits
