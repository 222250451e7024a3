"""Labelled texts: csv, tsv, jsonl and json files, or a folder with a folder of texts for each class.

Columns are named by the user, or found by name (text, message, … and label, class, …) or, in a file without a header,
by their content: the label column is the one with few different values. A text with several labels has them in one
column with | between them, or as a list in jsonl. Texts that are yet to be labelled are found in the same files.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pellucid.runtime import LITTER, DataError, inform, problem, shown
from pellucid.text.documents import SPLITS, read_text
from pellucid.text.readers import LABEL_FIELDS
from pellucid.text.sources import TEXT_FIELDS

BETWEEN = "|"  # stands between the labels of a text that has several
JSON, TABLES = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv")


@dataclass(frozen=True)
class Labelled:
    """A text, its label, and the split where the file names one; `where` is its file and line, for errors."""

    text: str
    label: str
    split: str = ""
    where: str = field(default="", compare=False)

    @property
    def labels(self) -> frozenset[str]:
        """The labels of a text that may have none, one or several."""
        return frozenset(self.label.split(BETWEEN)) if self.label else frozenset()


@dataclass(frozen=True)
class Columns:
    """Which columns hold the texts and the labels (empty: found by looking), and whether a text has several labels."""

    text: str = ""
    label: str = ""
    several: bool = False


def read_labelled(path: Path, columns: Columns | None = None) -> list[Labelled]:
    """All labelled texts of a file or folder, as `read_examples`, found to be enough to learn and test from."""
    examples = read_examples(path, columns)
    check_classes(path, examples, (columns or Columns()).several)
    return examples


def read_examples(path: Path, columns: Columns | None = None) -> list[Labelled]:
    """All labelled texts of a file or folder; empty ones are left out, and counted in a message.

    DataError names the file and the line of what is missing or broken.
    """
    path, columns = Path(path), columns or Columns()
    if path.is_dir():
        rows: Iterable[tuple[str, dict[str, Any]]] = _folder_rows(path)
    else:
        text = read_text(path)
        rows = _json_rows(path, text, columns) if _is_json(path) else _table_rows(path, text, columns)
    found = [_checked(where, row, columns) for where, row in rows]
    examples = [example for example in found if example.text.strip()]
    if empty := len(found) - len(examples):
        inform(f"{path}: left out as empty: {empty} of {len(found)} texts.")
    if not examples:
        raise DataError(problem(path, "no labelled text", "a text and a label on each line", "Check the file."))
    return examples


def has_columns(path: Path) -> bool:
    """Whether a file's name says that it holds more than a text on each line."""
    return path.suffix.lower() in (*JSON, *TABLES)


def _is_json(path: Path) -> bool:
    return path.suffix.lower() in JSON


def read_texts(path: Path, column: str = "") -> list[str]:
    """The texts of a file with columns, without their labels if it has any; empty ones left out, and counted.

    DataError where the column is not found, or a line lacks it.
    """
    text = read_text(path)
    rows = _json_texts(path, text, column) if _is_json(path) else _table_texts(path, text, column)
    found = [_spelt(row) for row in rows]
    texts = [text for text in found if text.strip()]
    if empty := len(found) - len(texts):
        inform(f"{path}: left out as empty: {empty} of {len(found)} texts.")
    return texts


def check_classes(path: Path, examples: Sequence[Labelled], several: bool = False, parts: int = 3) -> None:
    """DataError for one class only, for a column that holds no classes, and for a class too rare to learn and test.

    `parts` is how many splits these examples are divided into.
    """
    classes = Counter(label for example in examples for label in (example.labels if several else {example.label}))
    if len(classes) < 2 and not several:
        found = f"only the label {next(iter(classes))!r}"
        raise DataError(problem(path, found, "two or more classes", "Add examples of another class."))
    if not classes:
        raise DataError(problem(path, "no label at all", "a label on some texts", "Check the label column."))
    if too_many_classes(len(classes), len(examples)):
        advice = (
            "Is that column an id or the text itself? Name the columns text and label in the first line, "
            "or name them with --text-column and --label-column."
        )
        raise DataError(problem(path, f"{len(classes)} different labels in {len(examples)} rows", "classes", advice))
    rare = [label for label, count in classes.items() if count < parts]
    if rare:
        advice = f"Each class needs one for each of the {parts} splits that are made of the file, at least."
        found = f"fewer than {parts} examples of {shown(rare[0])!r}"
        raise DataError(problem(path, found, f"{parts} or more of each class", advice))
    alike = Counter(label.casefold() for label in classes)
    for label in (label for label, count in alike.items() if count > 1):
        inform(f"{path}: {alike[label]} labels are spelt alike but for their case ({label}); they count as different.")


def _checked(where: str, row: dict[str, Any], columns: Columns) -> Labelled:
    value = row["label"]
    if isinstance(value, list):
        if not columns.several:
            advice = "With --multi-label a text may have several."
            raise DataError(problem(where, f"a list of {len(value)} labels", "one label", advice))
        names = [_spelt(item).strip() for item in value]
    else:
        names = _names(_spelt(value), columns)
    if not columns.several and not names[0]:
        raise DataError(problem(where, "no label", "a label beside every text", "Fill it in or remove the line."))
    split = str(row.get("split") or "").strip()
    if split and split not in SPLITS:
        raise DataError(problem(where, f"split {shown(split)!r}", "train, val or test", "Mend the line."))
    label = BETWEEN.join(sorted({name for name in names if name})) if columns.several else names[0]
    return Labelled(_spelt(row["text"]), label, split, where)


def _names(cell: str, columns: Columns) -> list[str]:
    """The label in a cell, or the labels."""
    return [name.strip() for name in (cell.split(BETWEEN) if columns.several else [cell])]


def _spelt(value: Any) -> str:
    """A value of a table or of JSON as text: true and 1 as JSON spells them, null as nothing."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _folder_rows(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """FOLDER/CLASS/*.txt, or FOLDER/train/CLASS/*.txt with val and test beside it."""
    tops = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    splits = {path.name: path for path in tops if path.name in SPLITS}
    found, others = False, []
    for split, top in splits.items() if splits else [("", folder)]:
        for kind in sorted(path for path in top.iterdir() if path.is_dir() and not path.name.startswith(".")):
            files = sorted(kind.glob("*.txt"))
            others += [path for path in kind.glob("[!.]*") if path.suffix != ".txt" and path.name not in LITTER]
            for file in files:
                found = True
                yield str(file), {"text": read_text(file).strip(), "label": kind.name, "split": split}
    if others:
        inform(f"{folder}: left out, as no .txt files: {len(others):,}, such as {others[0]}.")
    if not found:
        advice = "Put the texts of each class into a folder of its name, as .txt files, or give a csv or jsonl file."
        raise DataError(problem(folder, "no texts by class", "FOLDER/CLASS/*.txt", advice))


def _records(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON list, or of a file with one on each line; with their places."""
    if text.lstrip()[:1] == "[" and path.suffix.lower() == ".json":
        values = enumerate(_parsed(f"{path}", text, 1), start=1)
        placed: Iterable[tuple[str, Any]] = ((f"{path}, record {number}", value) for number, value in values)
    else:  # splitlines would also cut at U+2028 inside a text
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        placed = ((f"{path}, line {number}", _parsed(f"{path}", line, number)) for number, line in lines)
    escapes = "\\ud" in text.lower()
    for where, record in placed:
        if not isinstance(record, dict):
            raise DataError(problem(where, "no JSON object", "an object with text and label", "Mend it there."))
        if escapes:
            _check_characters(where, record)
        yield where, record


def _parsed(where: str, text: str, line: int) -> Any:
    """`text`, which begins on that line of the file, as JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        found = f"broken JSON ({getattr(error, 'msg', 'a number or brackets without end')})"
        place = f"{where}, line {line + getattr(error, 'lineno', 1) - 1}"
        advice = "Mend the line; a .json file holds a list, or an object on each line."
        raise DataError(problem(place, found, "a JSON object", advice)) from error


def _check_characters(where: str, record: dict[str, Any]) -> None:
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        advice = "Half of a character is missing; write the file anew as UTF-8."
        raise DataError(problem(where, "half a character", "Unicode text", advice)) from error


def _json_rows(path: Path, text: str, columns: Columns) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, record in _records(path, text):
        text_key, label_key = (_key_of(record, known) for known in _known(columns))
        if text_key is None or label_key is None:
            found = f"the keys {', '.join(map(shown, record)) or '(none)'}"
            expected = " and ".join(f"{known[0]}" for known in _known(columns))
            advice = "Rename them, or name them with --text-column and --label-column."
            raise DataError(problem(where, found, f"the keys {expected}", advice))
        yield where, {"text": record[text_key], "label": record[label_key], "split": record.get("split")}


def _json_texts(path: Path, text: str, column: str) -> Iterator[Any]:
    known, _ = _known(Columns(column))
    for where, record in _records(path, text):
        key = _key_of(record, known)
        if key is None:
            found = f"the keys {', '.join(map(shown, record)) or '(none)'}"
            advice = "Rename it, or name it with --text-column."
            raise DataError(problem(where, found, f"the key {known[0]}", advice))
        yield record[key]


def _key_of(record: dict[str, Any], known: Sequence[str]) -> str | None:
    """The key of a record that has one of these names, in any case of its letters."""
    names = {key.lower(): key for key in record}
    return next((names[name] for name in known if name in names), None)


def _known(columns: Columns) -> tuple[Sequence[str], Sequence[str]]:
    """In lower case, the names that the columns of texts and of labels may have."""
    return (
        [columns.text.lower()] if columns.text else TEXT_FIELDS,
        [columns.label.lower()] if columns.label else LABEL_FIELDS,
    )


def _table_rows(path: Path, text: str, columns: Columns) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = _cells(path, text)
    if not rows:
        return
    first = [cell.strip().lower() for cell in rows[0][1]]
    text_at, label_at = (
        next((first.index(name) for name in known if name in first), None) for known in _known(columns)
    )
    for name, place in ((columns.text, text_at), (columns.label, label_at)):
        if name and place is None:
            found = f"the columns {', '.join(map(shown, first))}"
            raise DataError(problem(f"{path}, line 1", found, f"one named {name!r}", "Check the name."))
    header = text_at is not None and label_at is not None
    if text_at is None or label_at is None:
        text_at, label_at = _columns_by_content(path, [row for _, row in rows], text_at, label_at)
        named = columns.text or columns.label
        header = bool(named) or _stands_alone([row[label_at] for _, row in rows if len(row) > label_at], columns)
        if header := header and len(first) > max(text_at, label_at):
            inform(
                f"{path}, line 1: taken as a header, with texts under {shown(first[text_at])!r} and labels under "
                f"{shown(first[label_at])!r}. --text-column and --label-column name others; if it is an example, put a "
                "line with the names above it."
            )
    split_at = first.index("split") if header and "split" in first else None
    width = len(first) if header else Counter(len(row) for _, row in rows).most_common(1)[0][0]
    for number, row in rows[int(header) :]:
        if len(row) <= max(text_at, label_at):
            found = f"{len(row)} column(s)"
            advice = "Fill it in or remove the line."
            raise DataError(problem(f"{path}, line {number}", found, "a text and a label", advice))
        _check_width(f"{path}, line {number}", row, width)
        split = row[split_at] if split_at is not None and split_at < len(row) else ""
        yield f"{path}, line {number}", {"text": row[text_at], "label": row[label_at], "split": split}


def _check_width(where: str, row: Sequence[str], width: int) -> None:
    """DataError where a row has more cells than there are columns: half a text, cut at a comma, would be learnt."""
    if any(cell.strip() for cell in row[width:]):
        advice = "A text with a comma in it needs quotation marks around it; with a tab it cannot stand in a tsv file."
        raise DataError(problem(where, f"{len(row)} columns", f"{width}, as elsewhere", advice))


def _table_texts(path: Path, text: str, column: str) -> list[str]:
    """The cells below the first line's name for texts; without one all of the only column, or as in training."""
    rows = _cells(path, text)
    first = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    known, _ = _known(Columns(column))
    place = next((first.index(name) for name in known if name in first), None)
    if place is None and all(len(row) == 1 for _, row in rows) and not column:
        return [row[0] for _, row in rows]
    if place is None:
        labelled = [] if column else [row for _, row in _table_rows(path, text, Columns())]
        if not labelled or too_many_classes(len({row["label"] for row in labelled}), len(labelled)):
            found = f"the columns {', '.join(map(shown, first))}"
            raise DataError(problem(f"{path}, line 1", found, f"one named {known[0]!r}", "Name it with --text-column."))
        labels = shown(", ".join(sorted({str(row["label"]) for row in labelled})))
        inform(f"{path}: no column has a name; what stands beside {labels} is taken as the texts.")
        return [row["text"] for row in labelled]
    for number, row in rows[1:]:
        if len(row) <= place:
            found, advice = f"{len(row)} column(s)", "Fill it in or remove the line."
            raise DataError(problem(f"{path}, line {number}", found, f"a text in column {place + 1}", advice))
        _check_width(f"{path}, line {number}", row, len(first))
    return [row[place] for _, row in rows[1:]]


def too_many_classes(kinds: int, rows: int) -> bool:
    """Whether so many different values in so many rows are ids or texts rather than labels."""
    return kinds > max(20, rows // 5)


def _stands_alone(labels: Sequence[str], columns: Columns) -> bool:
    """Whether the first of these labels is on no other line, though others are on several: then it names the column."""
    counts = Counter(label for cell in labels for label in _names(cell, columns))
    return max(counts.values(), default=1) > 1 and [counts[label] for label in _names(labels[0], columns)] == [1]


def _by_tabs(path: Path, text: str) -> bool:
    """Whether tabs stand between the columns of a table."""
    ending = path.suffix.lower()
    return ending == ".tsv" or ("\t" in text.split("\n", 1)[0] and ending != ".csv")


def _cells(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """The rows of a table with their line numbers, without empty ones.

    Cells are divided by commas; by semicolons, as some programs write csv, where these alone divide all rows alike.
    """
    if _by_tabs(path, text):
        # quotation marks are part of a message there, not a quoting
        return [(n, line.split("\t")) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not _divides(path, text, ",") and _divides(path, text, ";"):
        return _divided(path, text, ";")
    return _divided(path, text, ",")


def _divides(path: Path, text: str, separator: str) -> bool:
    """Whether all of several rows then have as many cells, and more than one."""
    with contextlib.suppress(DataError):
        widths = [len(row) for _, row in _divided(path, text, separator)]
        return len(widths) > 1 and len(set(widths)) == 1 and widths[0] > 1
    return False


def _divided(path: Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text), strict=True, delimiter=separator)
    csv.field_size_limit(2**30)
    try:
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        advice = "Is a quotation mark left open there?"
        raise DataError(problem(f"{path}, line {reader.line_num}", str(error), "valid csv", advice)) from error


def _columns_by_content(
    path: Path, rows: Sequence[Sequence[str]], text_at: int | None, label_at: int | None
) -> tuple[int, int]:
    """(text, label) columns where names do not tell both: the longest texts, the fewest kinds, of two the fewer."""
    whole = [row for row in rows if len(row) >= 2]
    if not whole:
        advice = "Give a csv, tsv, jsonl or json file with the columns text and label."
        raise DataError(problem(path, "one column", "two columns, text and label", advice))
    columns = range(min(map(len, whole)))
    kinds = [len({row[column] for row in whole}) for column in columns]
    if label_at is not None:
        return max((c for c in columns if c != label_at), key=lambda c: sum(len(row[c]) for row in whole)), label_at
    if text_at is not None:
        return text_at, min((c for c in columns if c != text_at), key=kinds.__getitem__)
    return (1, 0) if kinds[0] <= kinds[1] else (0, 1)
