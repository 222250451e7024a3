"""`pellucid classify`: texts in, labels out. Loads nothing that only making a classifier needs."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.finetune.classify import Array, Cut, decide, encode_texts, open_classifier, predict
from pellucid.finetune.labelled import BETWEEN, has_columns, read_texts
from pellucid.options import Classify
from pellucid.runtime import (
    ConfigError,
    DataError,
    Verbatim,
    inform,
    one_line_of_json,
    printable,
    problem,
    progress_bar,
    utf8_input,
)
from pellucid.text.documents import read_text
from pellucid.text.tokenizer import Tokenizer


def classify(options: Classify) -> tuple[dict[str, Any], str]:
    """`pellucid classify`: texts from the command line, a file, or standard input."""
    texts = texts_to_classify(options)
    model, tokenizer = open_classifier(options.run)
    context = model.gpt.config.context_length
    rows = encode_texts(texts, tokenizer, context, model.rule.cut)
    tell_cut(texts, rows, tokenizer, context, model.rule.cut)
    with progress_bar() as bar:
        task = bar.add_task("classifying", total=len(rows), note="")
        probabilities = predict(model, rows, tokenizer.end_of_text, told=lambda texts: bar.advance(task, texts))
    said = decide(probabilities, model.labels, model.rule)
    results: list[dict[str, Any]] = [
        {"text": text, "label": names_of(answer, model.labels), "probability": sureness(row, answer)}
        for text, row, answer in zip(texts, probabilities, said, strict=True)
    ]
    if model.rule.several and (options.json or options.format == "jsonl"):  # for programs
        for result, answer in zip(results, said, strict=True):
            result["labels"] = labels_of(answer, model.labels)
    if options.json or options.format == "table":
        width = max((len(row["label"]) for row in results), default=0)
        lines = [f"{printable(r['label']):<{width}}  {r['probability']:.3f}  {one_line(r['text'])}" for r in results]
        return {"results": results}, "\n".join(lines)
    if options.format == "jsonl":
        return {}, "\n".join(map(one_line_of_json, results))
    table = io.StringIO()
    writer = csv.DictWriter(table, ["text", "label", "probability"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(results)
    content = table.getvalue().rstrip("\n")
    return {}, content if sys.stdout.isatty() else Verbatim(content)


def sureness(row: Array, answer: Array) -> float:
    """The probability of what is said: of the least sure label said, or that none of them holds."""
    return float(row[answer].min() if answer.any() else np.prod(1 - row))


def texts_to_classify(options: Classify) -> Sequence[str]:
    """The texts given, or those of a file or of standard input; DataError where there is none."""
    file = options.file
    columns = file is not None and has_columns(file)
    if options.texts and file is not None:
        found = f"{len(options.texts)} of the command line, too"
        raise ConfigError(problem(f"--file {file}", found, "texts from one place", "Leave one of them out."))
    if options.text_column and not columns:
        found, advice = "texts without columns", "Leave it out, or give --file."
        raise ConfigError(problem("--text-column", found, "a csv, tsv, jsonl or json --file", advice))
    if options.texts:
        return options.texts
    if file is None and sys.stdin.isatty():
        advice = "Give texts in quotation marks, or --file FILE (- is standard input)."
        raise DataError(problem("classify", "no text", "one or more", advice))
    texts = read_texts(file, options.text_column) if file is not None and columns else lines_of(file)
    if not texts:
        raise DataError(problem(file or "standard input", "no text", "a text on each line", "Check it."))
    return texts


def lines_of(file: Path | None) -> list[str]:
    """The lines of a file, or of standard input, that are not empty."""
    with utf8_input():
        content = sys.stdin.read() if file is None or str(file) == "-" else read_text(file)
    return [line for line in content.split("\n") if line.strip()]


def tell_cut(
    texts: Sequence[str], rows: Sequence[Sequence[int]], tokenizer: Tokenizer, context_length: int, cut: Cut
) -> None:
    """Say how many texts are longer than the context, and what is left out of them; `rows` is what was kept."""
    full = [text for text, row in zip(texts, rows, strict=True) if len(row) == context_length]
    longer = sum(len(ids) > context_length for ids in tokenizer.encode_batch(full)) if full else 0
    if longer:
        many = f"{longer} of {len(texts)} texts are longer"
        inform(f"{many} than the context of {context_length} tokens; their {cut} is cut.")


def one_line(text: str) -> str:
    """The beginning of a text, fit for a terminal."""
    shown = printable(text[:200]).replace("\n", " ")
    return shown if len(shown) <= 100 else shown[:99] + "…"


def names_of(answer: Array, labels: Sequence[str]) -> str:
    """The labels that are said, as one text: as a file of labelled texts has them."""
    return BETWEEN.join(labels_of(answer, labels))


def labels_of(answer: Array, labels: Sequence[str]) -> list[str]:
    """The labels that are said."""
    return [label for label, here in zip(labels, answer, strict=True) if here]
