"""What an assistant answers to questions it was never shown, and how good that is.

Where answers can be checked: exact match, and the overlap of words (F1). Whatever the questions are: whether answers
end by themselves, how long they are, how much of them is said again, and how likely the model holds the right answer.
A model that was never taught to talk is asked in plain text, so that a base model can stand beside the tuned one.
Papers: Rajpurkar et al. 2016, "SQuAD", section 6 (F1); Welleck et al. 2020, "Neural Text Generation with Unlikelihood
Training", section 5 (repetition).
"""

from __future__ import annotations

import math
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pellucid.finetune.conversation import lacks
from pellucid.finetune.instruct import Row, answer_loss
from pellucid.finetune.instructions import Example
from pellucid.generation.engine import generate_batch, prompt_ids
from pellucid.model.gpt import GPT
from pellucid.text.tokenizer import Tokenizer

RUN = 4  # words that count as said again when they stand together twice
RESAMPLES = 1000


@dataclass(frozen=True)
class Answer:
    """What the assistant said to an example, whether it was right, whether it ended by itself, and its length."""

    example: Example
    said: str
    right: bool
    ended: bool
    tokens: int = 0


def talks(tokenizer: Tokenizer) -> bool:
    """Whether a model with this tokenizer was taught to talk in our layout."""
    return not lacks(tokenizer)


def asked(example: Example, tokenizer: Tokenizer) -> list[int]:
    """The ids that ask for an answer: the conversation, or its plain text for a model that was not taught to talk."""
    if talks(tokenizer):
        return example.question().prompt(tokenizer)
    said = [message.content for message in example.question().messages]
    return prompt_ids(tokenizer, "\n".join(said) + "\n")


def answer_all(
    model: GPT,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    is_right: Callable[[Example, str], bool],
    max_tokens: int = 100,
) -> list[Answer]:
    """Greedy answers to all examples."""
    prompts = [asked(example, tokenizer) for example in examples]
    with torch.inference_mode():
        size = tokenizer.vocab_size
        answers = generate_batch(model, prompts, max_tokens, tokenizer.end_of_text, vocab_size=size)
    texts = [tokenizer.decode(ids) for ids, _ in answers]
    return [
        Answer(example, text, is_right(example, text), ended, len(ids))
        for example, text, (ids, ended) in zip(examples, texts, answers, strict=True)
    ]


def same_text(example: Example, answer: str) -> bool:
    """Exact match, white space at the ends aside."""
    return answer.strip() == example.output.strip()


# ---------------------------------------------------------------- scores


def word_f1(expected: str, said: str) -> float:
    """Overlap of the words of two texts, from 0 to 1: letter case and punctuation at words' ends do not count."""
    one, other = words_of(expected), words_of(said)
    if not one or not other:
        return float(one == other)
    shared = sum((Counter(one) & Counter(other)).values())
    return 2 * shared / (len(one) + len(other))


def words_of(text: str) -> list[str]:
    """The words of a text, to be compared."""
    return [word for piece in text.casefold().split() if (word := piece.strip(string.punctuation))]


def repetition(text: str) -> float:
    """Share of the runs of four words that were said before in the same text: 0 is none, near 1 is a loop."""
    words = text.split()
    runs = [tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def assistant_scores(answers: Sequence[Answer]) -> dict[str, Any]:
    """Exact match over all and by family, F1, stop rate, length and repetition; `intervals` are of 95 %."""
    families: dict[str, list[bool]] = defaultdict(list)
    for answer in answers:
        families[answer.example.family].append(answer.right)
    rows = {
        "exact_match": [float(answer.right) for answer in answers],
        "f1": [word_f1(answer.example.output, answer.said) for answer in answers],
        "stop_rate": [float(answer.ended) for answer in answers],
        "tokens": [float(answer.tokens) for answer in answers],
        "repetition": [repetition(answer.said) for answer in answers],
    }
    return {
        **{name: sum(values) / max(len(values), 1) for name, values in rows.items()},
        "intervals": {name: mean_interval(values) for name, values in rows.items()},
        "families": {name: sum(right) / len(right) for name, right in sorted(families.items())},
        "questions": len(answers),
    }


def mean_interval(values: Sequence[float], seed: int = 0) -> list[float]:
    """Where 95 % of the means of a bootstrap over the values lie; empty for fewer than two, which show no spread."""
    if len(values) < 2:
        return []
    draws = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(np.asarray(values)[draws].mean(axis=1), [0.025, 0.975])
    return [float(low), float(high)]


def in_brackets(interval: Sequence[float], form: str) -> str:
    """An interval as it stands behind its number; nothing where there is none."""
    return f" ({' to '.join(f'{edge:{form}}' for edge in interval)})" if interval else ""


@torch.inference_mode()
def reference_perplexity(model: GPT, tokenizer: Tokenizer, examples: Sequence[Example]) -> float | None:
    """Perplexity of the reference answers and their ends, each after its own question, all tokens counting alike.

    An answer that does not fit the context is judged as far as it does; None where nothing fits.
    """
    limit = model.config.context_length + 1
    rows: list[Row] = []
    for example in examples:
        prompt, answer = asked(example, tokenizer), [*tokenizer.encode(example.output), tokenizer.end_of_text]
        rows.append(((prompt + answer)[:limit], ([False] * len(prompt) + [True] * len(answer))[:limit]))
    loss = answer_loss(model, rows, tokenizer.end_of_text)
    return None if loss is None else math.exp(min(loss, 700.0))
