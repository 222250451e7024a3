"""Questions with known answers: how often a model takes the right ending (HellaSwag), or says the last word (LAMBADA).

Rows of any jsonl, told apart by looking: a context with several endings and the number of the right one, or a context
with the one text that should follow. Nothing is generated: what counts is how likely the model finds each text.
Pages: Zellers et al. 2019, "HellaSwag"; Paperno et al. 2016, "The LAMBADA dataset"; counted as lm-evaluation-harness
does, so that figures can be compared.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pellucid.model.gpt import GPT
from pellucid.pretrain.loss import logits_of
from pellucid.runtime import DataError, problem
from pellucid.text.documents import read_text
from pellucid.text.tokenizer import Tokenizer

CONTEXTS = ("ctx", "context", "prompt", "question", "query", "goal", "text")
ENDINGS = ("endings", "choices", "options")
NUMBERS = ("label", "gold", "answer", "answer_index")
FOLLOWING = ("target", "continuation", "completion", "answer", "last_word")
Json = dict[str, Any]
Pair = tuple[list[int], list[int]]  # ids of a context, ids of what may follow


@dataclass(frozen=True)
class Question:
    """A context, the texts that may follow it, and which one is right."""

    context: str
    endings: tuple[str, ...]
    right: int


def read_questions(path: Path, last_word: bool = False) -> list[Question]:
    """The questions of a jsonl file, all of one kind; [] where its first row is none.

    With `last_word` every row is a text whose last word is asked for. A row that is not like the first is a DataError.
    """
    questions: list[Question] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            found = f"broken JSON ({getattr(error, 'msg', 'a number or brackets without end')})"
            raise DataError(problem(where, found, "an object", "Mend the line.")) from error
        question = _last_word(row) if last_word else _question(row)
        if question is None:
            if not questions and not last_word:
                return []
            expected = "a text of several words" if last_word else "a context with endings or with what follows"
            raise DataError(problem(where, f"{line[:60]!r}", expected, "Mend or remove the line."))
        if not all(map(str.strip, question.endings)):  # nothing at all would always be the likeliest
            raise DataError(problem(where, "an empty ending", "a text", "Mend or remove the line."))
        questions.append(question)
    if not questions:
        raise DataError(problem(path, "no rows", "questions", "Check the file."))
    return questions


def _question(row: Any) -> Question | None:
    if not isinstance(row, dict):
        return None
    context = next((row[key] for key in CONTEXTS if isinstance(row.get(key), str)), None)
    endings = next((row[key] for key in ENDINGS if isinstance(row.get(key), list) and row[key]), None)
    if context is None:
        return None
    if endings is None:
        target = next((row[key] for key in FOLLOWING if isinstance(row.get(key), str) and row[key].strip()), None)
        return None if target is None else Question(context, (_spaced(context, target),), 0)
    right = next((row[key] for key in NUMBERS if re.fullmatch("[0-9]{1,9}", str(row.get(key)))), None)
    if right is None or int(right) >= len(endings) or not all(isinstance(ending, str) for ending in endings):
        return None
    return Question(context, tuple(_spaced(context, ending) for ending in endings), int(right))


def _last_word(row: Any) -> Question | None:
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str) or len(text.split()) < 2:
        return None
    context, word = text.rstrip().rsplit(maxsplit=1)
    return Question(context, (f" {word}",), 0)


def _spaced(context: str, ending: str) -> str:
    """What follows a context begins with a space, unless one stands between them already."""
    return ending if not context or context[-1].isspace() or ending[:1].isspace() else f" {ending}"


def split_ids(tokenizer: Tokenizer, context: str, ending: str) -> Pair:
    """The ids of a context and of what follows; spaces at the end of the context belong to what follows."""
    kept = context.rstrip()
    context, ending = kept, context[len(kept) :] + ending
    whole, begin = tokenizer.encode(context + ending), tokenizer.encode(context)
    return begin or [tokenizer.end_of_text], whole[len(begin) :]


@torch.inference_mode()
def likelihoods(model: GPT, pairs: Sequence[Pair], batch_size: int = 16) -> list[tuple[float, bool]]:
    """Log-likelihood of each continuation after its context, and whether each of its tokens is the likeliest.

    What is longer than the model's context loses its beginning.
    """
    model.eval()
    length = model.config.context_length
    rows = [(context + ending)[-(length + 1) :] for context, ending in pairs]
    results: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        ids = torch.zeros(len(chosen), max(len(rows[i]) for i in chosen), dtype=torch.long)
        for place, i in enumerate(chosen):
            ids[place, : len(rows[i])] = torch.tensor(rows[i])
        hidden = model.hidden(ids[:, :-1].to(model.device))  # (B, T, D)
        for place, i in enumerate(chosen):
            end = len(rows[i]) - 1
            begin = max(0, end - len(pairs[i][1]))
            wanted = ids[place, begin + 1 : end + 1].to(model.device)
            for logits, right in logits_of(model, hidden[place, begin:end], wanted):
                log, likeliest = results[i]
                log -= float(F.cross_entropy(logits, right, reduction="none").cpu().double().sum())
                results[i] = log, likeliest and bool((logits.argmax(dim=1) == right).all())
    return results


def score_questions(model: GPT, tokenizer: Tokenizer, questions: Sequence[Question]) -> Json:
    """How often the model is right, with 95 % intervals; beside it, how often a guess would be."""
    pairs = [split_ids(tokenizer, question.context, ending) for question in questions for ending in question.endings]
    found = iter(likelihoods(model, pairs))
    each = [[next(found) for _ in question.endings] for question in questions]
    if all(len(question.endings) == 1 for question in questions):
        right = [rows[0][1] for rows in each]
        nats = np.array([-rows[0][0] for rows in each])
        scores: Json = {"kind": "last-word", "accuracy": _share(right), "accuracy_interval": wilson(right)}
        return {**scores, "perplexity": math.exp(min(float(nats.mean()), 700)), "questions": len(questions)}
    plain, by_length = [], []
    for question, rows in zip(questions, each, strict=True):
        logs = np.array([log for log, _ in rows])
        sizes = np.array([max(len(ending.encode()), 1) for ending in question.endings])
        plain.append(int(logs.argmax()) == question.right)
        by_length.append(int((logs / sizes).argmax()) == question.right)
    return {
        "kind": "choices",
        "accuracy": _share(plain),
        "accuracy_interval": wilson(plain),
        "accuracy_by_length": _share(by_length),
        "accuracy_by_length_interval": wilson(by_length),
        "guess": float(np.mean([1 / len(question.endings) for question in questions])),
        "questions": len(questions),
    }


def _share(right: Sequence[bool]) -> float:
    return sum(right) / len(right)


def wilson(right: Sequence[bool]) -> list[float]:
    """95 % interval of a share. Page: Wilson 1927, "Probable Inference, the Law of Succession"."""
    n, z = len(right), 1.96
    share = _share(right)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return [middle - half, middle + half]


def as_lines(scores: Json) -> Iterator[str]:
    """The scores as people read them."""
    names = {"accuracy": "accuracy", "accuracy_by_length": "accuracy, by length", "perplexity": "perplexity"}
    for key, name in names.items():
        if key in scores:
            interval = scores.get(f"{key}_interval")
            spread = f"   (95 %: {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
            yield f"{name:>20}: {scores[key]:.3f}{spread}"
    if "guess" in scores:
        yield f"{'a guess':>20}: {scores['guess']:.3f}"
    yield f"over {scores['questions']:,} questions"
