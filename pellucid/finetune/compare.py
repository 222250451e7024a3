"""Two models side by side on the same held-out questions: what each says, how good that is, and which is better.

Pairwise, question by question: by the checks alone (exact match, then the words in common), and by a judge, if there is
one. A base model that was never taught to talk is asked in plain text.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.compute import pick_device
from pellucid.finetune.answers import (
    Answer,
    answer_all,
    assistant_scores,
    mean_interval,
    reference_perplexity,
    same_text,
    talks,
    word_f1,
)
from pellucid.finetune.instructions import Example
from pellucid.finetune.judge import Judge, Question, Reply
from pellucid.finetune.recipes import open_model
from pellucid.model.formats.folder import say_if_classifier
from pellucid.runtime import DataError, inform, problem, progress_bar

POINTS = {"a": 1.0, "b": 0.0, "tie": 0.5, "unclear": 0.5, "failed": 0.5}  # for a; the last three count for neither


@dataclass(frozen=True)
class Contender:
    """One of the two models, its answers, and its scores."""

    name: str
    answers: list[Answer]
    scores: dict[str, Any]
    taught: bool
    """Whether it was asked as an assistant, or in plain text."""


def contender(run: Path, examples: Sequence[Example], max_tokens: int) -> Contender:
    """Load a model, let it answer, and let it go again: two need not fit in memory together."""
    say_if_classifier(run)
    model, tokenizer = open_model(run)
    model = model.to(pick_device())
    if max_tokens >= model.config.context_length:
        found = f"{max_tokens} tokens for an answer"
        advice = "Lower --max-tokens."
        raise DataError(problem(run, found, f"fewer than its context of {model.config.context_length}", advice))
    lengths = map(len, tokenizer.encode_batch([example.output for example in examples]))
    if longer := sum(length > max_tokens for length in lengths):
        more = "none as long can end by itself. Raise --max-tokens."
        inform(f"{run}: of {len(examples)} right answers {longer} are longer than {max_tokens} tokens: {more}")
    answers: list[Answer] = []
    with progress_bar() as bar:
        task = bar.add_task(str(run), total=len(examples), note="")
        for first in range(0, len(examples), 64):
            answers += answer_all(model, tokenizer, examples[first : first + 64], same_text, max_tokens)
            bar.update(task, completed=len(answers))
    scores = assistant_scores(answers)
    scores["reference_perplexity"] = reference_perplexity(model, tokenizer, examples)
    return Contender(run.resolve().name, answers, scores, talks(tokenizer))


def chosen(questions: Sequence[Example], count: int, seed: int) -> list[Example]:
    """At most `count` of the questions, drawn at random, in their order."""
    if count < 1:
        raise DataError(problem("--questions", str(count), "1 or more", "100 is the default."))
    picked = sorted(random.Random(seed).sample(range(len(questions)), min(count, len(questions))))
    return [questions[i] for i in picked]


def by_checks(a: Answer, b: Answer) -> str:
    """Which of two answers to the same question is better by exact match and words in common: a, b or tie."""
    one, other = ((answer.right, round(word_f1(answer.example.output, answer.said), 6)) for answer in (a, b))
    return "tie" if one == other else "a" if one > other else "b"


def judged(a: Contender, b: Contender, judge: Judge) -> list[list[Reply]]:
    """The judge's replies to each question."""
    questions = [
        Question("\n\n".join(message.content for message in one.example.question().messages), one.example.output,
                 one.said, other.said)
        for one, other in zip(a.answers, b.answers, strict=True)
    ]  # fmt: skip
    with progress_bar() as bar:
        task = bar.add_task("judge", total=len(questions) * 2 * judge.repeats, note="")
        return judge.compare(questions, told=lambda: bar.advance(task))


def tally(verdicts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Wins of a and b, ties, unclear and failed replies over all; `a_share` is a's share of the points.

    Its 95 % interval is a bootstrap over questions: replies to the same question are no independent news.
    """
    counts = Counter(verdict for replies in verdicts for verdict in replies)
    points = [sum(POINTS[verdict] for verdict in replies) / len(replies) for replies in verdicts if replies]
    return {
        **{name: counts[name] for name in POINTS},
        "replies": sum(counts.values()),
        "questions": len(points),
        "a_share": sum(points) / max(len(points), 1),
        "interval": mean_interval(points),
    }


def judgement(replies: Sequence[Sequence[Reply]]) -> dict[str, Any]:
    """The tally of a judge's replies, and how it judges: how often it took the answer that stood first."""
    found = tally([[reply.verdict for reply in group] for group in replies])
    picked = [reply for group in replies for reply in group if reply.verdict in ("a", "b")]
    first = sum((reply.verdict == "a") == reply.a_first for reply in picked)
    return {**found, "first_share": first / len(picked) if picked else None}


def compare_answers(a: Contender, b: Contender, judge: Judge | None = None) -> dict[str, Any]:
    """Everything about the two as plain values: what --json prints and the page shows."""
    pairs = list(zip(a.answers, b.answers, strict=True))
    checks = [by_checks(one, other) for one, other in pairs]
    replies = judged(a, b, judge) if judge else []
    rows = []
    for number, (one, other) in enumerate(pairs):
        example = one.example
        rows.append(
            {
                "question": [{"role": turn.role, "content": turn.content} for turn in example.question().messages],
                "expected": example.output,
                "family": example.family,
                "a": _row(one),
                "b": _row(other),
                "checks": checks[number],
                "judge": [{"verdict": r.verdict, "a_first": r.a_first, "text": r.text} for r in replies[number]]
                if replies
                else [],
            }
        )
    return {
        "a": {"name": a.name, "taught": a.taught, "scores": a.scores},
        "b": {"name": b.name, "taught": b.taught, "scores": b.scores},
        "checks": tally([[verdict] for verdict in checks]),
        "judge": {"model": judge.model, "repeats": judge.repeats, **judgement(replies)} if judge else None,
        "questions": rows,
    }


def _row(answer: Answer) -> dict[str, Any]:
    f1 = round(word_f1(answer.example.output, answer.said), 4)
    return {"said": answer.said, "right": answer.right, "ended": answer.ended, "tokens": answer.tokens, "f1": f1}
