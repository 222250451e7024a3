"""What the terminal shows of each step's results."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np

from pellucid.quickstart.run import Results, Run


def show_text(result: Results) -> str:
    """The same sentence in three kinds of tokens, and the sizes of the splits."""
    lines = [f"{kind:>5}: {'|'.join(pieces)}  ({len(pieces)})" for kind, pieces in result["views"].items()]
    sizes = [f"{name} {result['documents'][name]:,} ({result['tokens'][name]:,} tokens)" for name in result["tokens"]]
    return "\n".join([*lines, "documents: " + ", ".join(sizes)])


def show_model(result: Results) -> str:
    """The parts as a table."""
    lines = [f"{name:<32}{count:>12,}{share:>8.1%}" for name, count, share in result["parts"]]
    return "\n".join([*lines, f"{'all':<32}{result['parameters']:>12,}"])


def show_pretrain(result: Results) -> str:
    """What was done."""
    return (
        f"{result['steps']:,} steps, {result['tokens']:,} tokens at {result['tokens_per_s']:,.0f} tokens/s "
        f"in {result['dtype']}; validation loss {result['val_loss']:.3f}"
    )


def show_evaluation(result: Results) -> str:
    """Loss, perplexity and bits per byte with their 95 % intervals, beside the baselines."""
    lines = [f"{'':>12}{'loss':>8}{'95 % interval':>18}{'perplexity':>12}{'bits/byte':>11}"]
    for name in ("unigram", "ngram", "model"):
        row = result[name]
        spread = " to ".join(f"{edge:.3f}" for edge in row["loss_interval"])  # nothing of a single part
        lines.append(
            f"{name:>12}{row['loss']:>8.3f}{spread:>18}{row['perplexity']:>12.1f}{row['bits_per_byte']:>11.3f}"
        )
    if result["floor_loss"] is not None:
        floor, bits = result["floor_loss"], result["floor_bits_per_byte"]
        lines.append(f"{'floor':>12}{floor:>8.3f}{'':>18}{np.exp(floor):>12.1f}{bits:>11.3f}")
    return "\n".join(lines)


def show_classifier(result: Results) -> str:
    """The scores and the confusion matrix."""
    scores, baseline = result["scores"], result["baseline"]
    lines = [
        f"accuracy {scores['accuracy']:.3f}  precision {scores['precision']:.3f}  recall {scores['recall']:.3f}  "
        f"F1 {scores['f1']:.3f}   (word counts: F1 {baseline['f1']:.3f})",
        f"{'truth, answer:':>16}" + "".join(f"{label:>10}" for label in scores["labels"]),
    ]
    for label, row in zip(scores["labels"], scores["confusion"], strict=True):
        lines.append(f"{label:>16}" + "".join(f"{count:>10}" for count in row))
    return "\n".join(lines)


def show_assistant(result: Results) -> str:
    """Exact match over all and by family, and a few answers as they are."""
    scores, baseline = result["scores"], result["baseline"]
    lines = [
        f"{scores['exact_match']:.1%} of {scores['questions']} held-out questions right "
        f"(nearest example: {baseline['exact_match']:.1%}), {scores['stop_rate']:.1%} ended by themselves"
    ]
    lines += [f"{name:>14}{share:>8.1%}" for name, share in scores["families"].items()]
    for answer in result["answers"][:3] + result["answers"][-3:]:
        mark = "right" if answer["right"] else "wrong"
        lines.append(f"? {answer['instruction']} {answer['input']}\n  {mark}: {answer['said']}")
    return "\n".join(lines)


def farewell(run: Run, report: Results) -> str:
    """Where everything is, and what to type next: with texts like those that the models were trained on."""
    out, own = run.out, run.options
    message = "a text of your own" if own.labels else "you won 500 dollars, call 0817 4352 now"
    sentence = run.results["text"]["sentence"] if own.text else "The opposite of hot is cold."

    def typed(verb: str, folder: Path, *more: str) -> str:
        return f"  pellucid {verb} {shlex.join([str(folder), *more])}"

    return "\n".join(
        [
            f"Done in {report['seconds']['total']:.0f} s. The report: {out / 'report.html'}",
            "What to type next:",
            typed("chat", out / "assistant"),
            typed("classify", out / "classifier", message),
            typed("see", out, "--text", sentence),
        ]
    )
