"""Instructions with answers from json and jsonl files, an honest split of them, and the nearest-example baseline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer

from pellucid.finetune.conversation import Conversation, answered, ask
from pellucid.finetune.splits import normalised
from pellucid.runtime import DataError, inform, problem
from pellucid.text.documents import SPLITS, read_text


@dataclass(frozen=True)
class Example:
    """An instruction, what it is about, the right answer; its family and split where the file names them."""

    instruction: str
    input: str
    output: str
    family: str = "all"
    split: str = ""

    def question(self) -> Conversation:
        """The conversation up to where the assistant is to speak."""
        return ask(self.instruction, self.input)

    def whole(self) -> Conversation:
        """The conversation with the right answer."""
        return answered(self.question(), self.output)


def read_instructions(path: Path) -> list[Example]:
    """All examples of a json (a list) or jsonl file with instruction, input (may be missing) and output.

    DataError names the file and the line, or the number of the record, of what is broken or missing.
    """
    path = Path(path)
    text = read_text(path)
    if path.suffix in (".jsonl", ".ndjson"):
        records = [(f"{path}, line {n}", line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
        pairs = [(where, _parsed(where, line, 1)) for where, line in records]
    else:
        content = _parsed(str(path), text, None)
        if not isinstance(content, list):
            raise DataError(problem(path, "no list", "a JSON list of records", "Put the records between [ and ]."))
        pairs = [(f"{path}, record {n}", record) for n, record in enumerate(content, start=1)]
    if not pairs:
        raise DataError(problem(path, "no record", "instructions with answers", "Check the file."))
    return [_example(where, record) for where, record in pairs]


def _parsed(where: str, text: str, line: int | None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = where if line else f"{where}, line {error.lineno}"
        raise DataError(problem(place, f"broken JSON ({error.msg})", "valid JSON", "Mend it there.")) from error


def _example(where: str, record: Any) -> Example:
    if not isinstance(record, dict):
        raise DataError(problem(where, "no JSON object", "instruction and output", "Mend the record."))
    values = {}
    for field in ("instruction", "input", "output", "family", "split"):
        value = record.get(field) or ""
        if not isinstance(value, str):
            raise DataError(problem(where, f"{field} {value!r}", "a text", "Put it in quotation marks."))
        values[field] = value
    for field in ("instruction", "output"):
        if not values[field].strip():
            known = ", ".join(map(str, record)) or "nothing"
            found = f"no {field} (the record has {known})"
            raise DataError(problem(where, found, "an instruction and an answer (output)", "Fill it in or remove it."))
    if values["split"] and values["split"] not in SPLITS:
        raise DataError(problem(where, f"split {values['split']!r}", "train, val or test", "Mend the record."))
    return Example(**{**values, "family": values["family"] or "all"})


def split_examples(
    examples: Sequence[Example], val: float = 0.05, test: float = 0.1, seed: int = 0
) -> dict[str, list[Example]]:
    """Train, val and test without a question in two of them. Splits named by the file are kept, but where it names
    none for val, a part of its train becomes val.
    """
    unique: dict[str, Example] = {}
    for example in examples:
        unique.setdefault(normalised(f"{example.instruction}\n{example.input}"), example)
    if len(unique) < len(examples):
        inform(f"{len(examples) - len(unique)} of {len(examples)} instructions were there before and are dropped.")
    splits: dict[str, list[Example]] = {name: [] for name in SPLITS}
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


def nearest_answers(train: Sequence[Example], test: Sequence[Example]) -> list[str]:
    """For each test question the answer of the most alike training question (TF-IDF of words, cosine)."""
    vectorizer = TfidfVectorizer(token_pattern=r"\S+")
    known = vectorizer.fit_transform([f"{example.instruction} {example.input}" for example in train])
    asked = vectorizer.transform([f"{example.instruction} {example.input}" for example in test])
    answers = []
    for first in range(0, len(test), 256):  # in slices: the product of all with all would not fit in memory
        nearest = (asked[first : first + 256] @ known.T).toarray().argmax(axis=1)
        answers += [train[index].output for index in nearest]
    return answers
