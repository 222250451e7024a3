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

    @property
    def answered_before(self) -> set[str]:
        """The keys of the questions that were asked earlier in the talk: their answers are learnt, too."""
        said = [message.content for message in self.earlier]
        asked = (place for place, message in enumerate(self.earlier, start=1) if message.role == "user")
        return {normalised("\n".join(said[:place])) for place in asked}

    @property
    def answers(self) -> tuple[str, ...]:
        """What is learnt of the question."""
        return (self.output,)

    def question(self) -> Conversation:
        """The conversation up to where the assistant is to speak."""
        return ask(self.instruction, self.input, self.earlier)

    def whole(self) -> Conversation:
        """The conversation with the right answer."""
        return answered(self.question(), self.output)


Kind = TypeVar("Kind", bound=Example)


def read_instructions(path: Path) -> list[Example]:
    """All examples of a file: Alpaca, ShareGPT, messages, prompt and completion, and the like (records.py).

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
    """Train, val and test without a question in two of them; all its different answers go along. Splits named by the
    file are kept; one that it does not name is taken from the rest, or where there is none from its train: of questions
    that no other talk has answered on its way.
    """
    questions = by_question(examples)
    answered: set[str] = set().union(*(example.answered_before for example in examples))
    kept = sum(map(len, questions.values()))
    if kept < len(examples):
        inform(f"left out as repeats of others: {len(examples) - kept} of {len(examples)} instructions.")
    named: dict[str, list[list[Kind]]] = {name: [] for name in (*SPLITS, "")}
    for key in sorted(questions, key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest()):
        named[questions[key][0].split].append(questions[key])
    rest = named.pop("")
    if not rest and not (named["val"] and named["test"]):
        rest, named["train"] = named["train"], []
    known, free = ([group for group in rest if (group[0].key in answered) == there] for there in (True, False))
    first = 0
    for name, share in (("test", test), ("val", val)):
        count = 0 if named[name] or not rest else max(1, round(share * len(rest)))
        named[name] += free[first : first + count]
        first += count
    named["train"] += free[first:] + known
    splits = {name: [replace(each, split=name) for group in groups for each in group] for name, groups in named.items()}
    if not all(splits.values()):
        raise DataError(
            f"{len(questions)} different instructions are too few for a train, a val and a test split: give more."
        )
    return splits


def by_question(examples: Sequence[Kind]) -> dict[str, list[Kind]]:
    """The different examples of each question. One that the file names for two splits stays in test before val before
    train, and a talk that answers one of test or val on its way is left out.
    """
    strength = {"test": 0, "val": 1, "train": 2}
    questions: dict[str, dict[tuple[str, ...], Kind]] = {}
    held = {example.key for example in examples if example.split in ("test", "val")}
    for example in sorted(examples, key=lambda example: strength.get(example.split, 3)):
        if example.split not in ("test", "val") and example.answered_before & held:
            continue
        group = questions.setdefault(example.key, {})
        split = next((first.split for first in group.values()), example.split)
        if example.split in ("", split):
            group.setdefault(example.answers, replace(example, split=split))
    return {key: list(group.values()) for key, group in questions.items()}


def once(examples: Sequence[Kind]) -> list[Kind]:
    """The first example of each question: nobody is asked twice."""
    first: dict[str, Kind] = {}
    for example in examples:
        first.setdefault(example.key, example)
    return list(first.values())
