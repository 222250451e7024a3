"""Labelled texts from csv, tsv or jsonl files, and an honest split of them.

Columns are found by name (text, message, … and label, class, …) or, in a file without a header, by their content: the
label column is the one with few different values.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pellucid.runtime import DataError, inform, problem
from pellucid.text.documents import SPLITS, read_text

TEXT_NAMES = ("text", "message", "sentence", "content", "body", "sms", "review", "v2")
LABEL_NAMES = ("label", "class", "category", "target", "tag", "sentiment", "v1")


@dataclass(frozen=True)
class Labelled:
    """A text, its label, and the split where the file names one."""

    text: str
    label: str
    split: str = ""


def read_labelled(path: Path) -> list[Labelled]:
    """All labelled texts of a file. DataError names the file and line of a missing label, one class only, and so on."""
    path = Path(path)
    text = read_text(path)
    rows = list(_jsonl_rows(path, text)) if path.suffix in (".jsonl", ".ndjson") else list(_table_rows(path, text))
    if not rows:
        raise DataError(problem(path, "no labelled text", "a text and a label on each line", "Check the file."))
    examples = [_checked(path, line, row) for line, row in rows]
    classes = Counter(example.label for example in examples)
    if len(classes) < 2:
        found = f"only the label {next(iter(classes))!r}"
        raise DataError(problem(path, found, "two or more classes", "Add examples of another class."))
    if len(classes) > max(20, len(examples) // 5):
        advice = "Is that column an id or the text itself? Name the columns text and label in the first line."
        raise DataError(problem(path, f"{len(classes)} different labels in {len(examples)} rows", "classes", advice))
    rare = [label for label, count in classes.items() if count < 3]
    if rare:
        advice = "Each class needs one for training, one for validation and one for the test, at least."
        raise DataError(problem(path, f"fewer than 3 examples of {rare[0]!r}", "3 or more of each class", advice))
    return examples


def _checked(path: Path, line: int, row: dict[str, str]) -> Labelled:
    where = f"{path}, line {line}"
    if not row["label"].strip():
        raise DataError(problem(where, "no label", "a label beside every text", "Fill it in or remove the line."))
    split = row.get("split", "").strip()
    if split and split not in SPLITS:
        raise DataError(problem(where, f"split {split!r}", "train, val or test", "Mend the line."))
    return Labelled(row["text"], row["label"].strip(), split)


def _jsonl_rows(path: Path, text: str) -> Iterable[tuple[int, dict[str, str]]]:
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would also cut at U+2028 inside a text
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(problem(where, f"broken JSON ({error.msg})", "a JSON object", "Mend the line.")) from error
        if not isinstance(record, dict):
            raise DataError(problem(where, "no JSON object", "an object with text and label", "Mend the line."))
        names = {key.lower(): key for key in record}
        text_key = next((names[name] for name in TEXT_NAMES if name in names), None)
        label_key = next((names[name] for name in LABEL_NAMES if name in names), None)
        if text_key is None or label_key is None:
            found = f"the keys {', '.join(map(str, record)) or '(none)'}"
            raise DataError(problem(where, found, "the keys text and label", "Rename them."))
        row = {"text": record[text_key], "label": record[label_key], "split": record.get("split") or ""}
        yield number, {key: "" if value is None else str(value) for key, value in row.items()}


def _table_rows(path: Path, text: str) -> Iterable[tuple[int, dict[str, str]]]:
    tabs = path.suffix == ".tsv" or ("\t" in text.split("\n", 1)[0] and path.suffix != ".csv")
    if tabs:  # quotation marks are part of a message there, not a quoting
        rows = [(n, line.split("\t")) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    else:
        reader = csv.reader(io.StringIO(text), strict=True)
        try:
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
        except csv.Error as error:
            advice = "Is a quotation mark left open there?"
            raise DataError(problem(f"{path}, line {reader.line_num}", str(error), "valid csv", advice)) from error
    if not rows:
        return
    first = [cell.strip().lower() for cell in rows[0][1]]
    text_at = next((first.index(name) for name in TEXT_NAMES if name in first), None)
    label_at = next((first.index(name) for name in LABEL_NAMES if name in first), None)
    split_at = first.index("split") if "split" in first and text_at is not None else None
    if text_at is None or label_at is None:
        text_at, label_at = _columns_by_content(path, [row for _, row in rows])
    else:
        rows = rows[1:]
    for number, row in rows:
        if len(row) <= max(text_at, label_at):
            found = f"{len(row)} column(s)"
            raise DataError(
                problem(f"{path}, line {number}", found, "a text and a label", "Fill it in or remove the line.")
            )
        split = row[split_at] if split_at is not None and split_at < len(row) else ""
        yield number, {"text": row[text_at], "label": row[label_at], "split": split}


def _columns_by_content(path: Path, rows: Sequence[Sequence[str]]) -> tuple[int, int]:
    """(text, label) columns of a table without a header."""
    whole = [row for row in rows if len(row) >= 2]
    if not whole:
        advice = "Give a csv, tsv or jsonl file with the columns text and label."
        raise DataError(problem(path, "one column", "two columns, text and label", advice))
    kinds = [len({row[column] for row in whole}) for column in (0, 1)]
    return (1, 0) if kinds[0] <= kinds[1] else (0, 1)


def normalised(text: str) -> str:
    """What makes two texts the same for a split: letter case and white space do not."""
    return " ".join(text.casefold().split())


def split_labelled(
    examples: Sequence[Labelled], val: float = 0.1, test: float = 0.2, seed: int = 0
) -> dict[str, list[Labelled]]:
    """Train, val and test: stratified by class, and no text twice. Splits named by the file are kept as they are, but
    where it names none for val, a part of its train becomes val.

    A text that stands twice is kept once (the dropped ones are counted in a message).
    """
    unique: dict[str, Labelled] = {}
    for example in examples:
        unique.setdefault(normalised(example.text), example)
    if len(unique) < len(examples):
        inform(f"{len(examples) - len(unique)} of {len(examples)} texts were there before and are dropped.")
    splits: dict[str, list[Labelled]] = {name: [] for name in SPLITS}
    rest: dict[str, list[Labelled]] = {}
    for example in unique.values():
        if example.split:
            splits[example.split].append(example)
        else:
            rest.setdefault(example.label, []).append(example)

    def place(example: Labelled) -> bytes:
        return hashlib.sha256(f"{seed}\0{normalised(example.text)}".encode()).digest()

    for members in rest.values():
        members.sort(key=place)
        n_test, n_val = (max(1, round(share * len(members))) for share in (test, val))
        for number, example in enumerate(members):
            name = "test" if number < n_test else "val" if number < n_test + n_val else "train"
            splits[name].append(replace(example, split=name))
    if not splits["val"]:
        for label in {example.label for example in splits["train"]}:
            members = sorted((example for example in splits["train"] if example.label == label), key=place)
            splits["val"] += [replace(example, split="val") for example in members[: max(1, round(val * len(members)))]]
        moved = {example.text for example in splits["val"]}
        splits["train"] = [example for example in splits["train"] if example.text not in moved]
    for name, members in splits.items():
        if len({example.label for example in members}) < 2:
            raise DataError(
                f"the {name} split has fewer than two classes after dropping repeated texts: give more examples."
            )
    return splits
