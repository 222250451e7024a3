"""`pellucid finetune classify`: a classifier made of labelled texts, and scored once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pellucid.compute import pick_device
from pellucid.config import FitConfig
from pellucid.finetune.calibration import best_temperature, thresholds
from pellucid.finetune.classify import (
    Classification,
    Classifier,
    ClassWeight,
    Rule,
    decide,
    predict,
    predict_logits,
    to_probabilities,
)
from pellucid.finetune.classify_texts import names_of, one_line, sureness, tell_cut
from pellucid.finetune.labelled import Columns, Labelled
from pellucid.finetune.linear import can_teach, lesson, made_up_count, rounds, svm_answers, word_count_answers
from pellucid.finetune.lora import Lora, merge_adapters, save_adapter, train_part
from pellucid.finetune.recipes import (
    CLASSIFY_RATES,
    fit_config,
    lora_of,
    open_model,
    recorded,
    with_steps,
)
from pellucid.finetune.scores import classification_scores, positive_label, probability_scores
from pellucid.finetune.splits import read_splits
from pellucid.options import FinetuneClassify
from pellucid.pretrain.distributed import joined, leave_the_rest_to_the_first
from pellucid.pretrain.fit import Begin, fit, goes_on
from pellucid.runtime import inform, printable, write_json

SHOWN = 20  # of the worst mistakes


@dataclass(frozen=True)
class Way:
    """How a classifier is trained: which part of it, with which weights of the classes, with a teacher or without."""

    train: str = "all"
    class_weight: ClassWeight = "none"
    lora: Lora | None = None
    taught: bool = False


def finetune_classifier(
    base: Path,
    splits: dict[str, list[Labelled]],
    config: FitConfig,
    out: Path,
    resume: bool,
    rule: Rule | None = None,
    way: Way | None = None,
    begin: Begin | None = None,
) -> dict[str, Any]:
    """Finetune the model in `base` on labelled texts, save it, and score it once on the test split.

    Temperature and thresholds are chosen on the val split.
    """
    rule, way = rule or Rule(), way or Way()
    torch.manual_seed(config.seed)
    gpt, tokenizer = open_model(base)
    gpt = gpt.to(pick_device(config.device))
    labels = all_labels(splits, rule.several)
    model = Classifier(gpt, labels, rule)
    train_part(model, gpt, way.train, way.lora)
    taught = lesson(splits["train"], labels, rule.several, config.seed) if way.taught else None
    context = gpt.config.context_length
    task = Classification(splits, labels, tokenizer, config, context, rule, way.class_weight, taught)
    rows = [row for name in splits for row in task.ids[name]]
    tell_cut([example.text for members in splits.values() for example in members], rows, tokenizer, context, rule.cut)
    fit(model, task, config, out, resume, begin)
    leave_the_rest_to_the_first()
    positive = positive_label([example.label for example in splits["train"]]) if len(labels) == 2 else None
    calibrate(model, task, None if rule.several else positive)
    if way.train == "lora":
        save_adapter(out / "adapter", gpt, str(base), head=model.head.weight)
        merge_adapters(gpt)
    model.save(out, tokenizer)
    return judge(model, task, splits, None if rule.several else positive)


def all_labels(splits: dict[str, list[Labelled]], several: bool) -> list[str]:
    """Every label of all splits, in order."""
    examples = [example for members in splits.values() for example in members]
    return sorted({label for example in examples for label in (example.labels if several else (example.label,))})


def calibrate(model: Classifier, task: Classification, positive: str | None) -> None:
    """Divide the head by the temperature that fits the val split best, and choose the thresholds there."""
    logits, targets = predict_logits(model, task.ids["val"], task.end), task.targets["val"]
    temperature = best_temperature(logits, targets, model.rule.several)
    with torch.no_grad():
        model.head.weight /= temperature
    probabilities = to_probabilities(logits / temperature, model.rule.several)
    limits = thresholds(probabilities, targets, model.labels, model.rule, positive)
    model.rule = replace(model.rule, temperature=temperature, thresholds=limits)


def judge(
    model: Classifier, task: Classification, splits: dict[str, list[Labelled]], positive: str | None
) -> dict[str, Any]:
    """Scores on the test split, beside simpler means, and the worst mistakes as text."""
    train, test, labels, rule = splits["train"] + splits["val"], splits["test"], model.labels, model.rule
    truth = task.targets["test"] > 0
    probabilities = predict(model, task.ids["test"], task.end)
    said = decide(probabilities, labels, rule)
    rows: list[dict[str, Any]] = [
        {
            "text": example.text[:2000],
            "truth": example.label,
            "answer": names_of(answer, labels),
            "probability": sureness(row, answer),
            "wrong": bool((answer != right).any()),
        }
        for example, answer, row, right in zip(test, said, probabilities, truth, strict=True)
    ]
    rows.sort(key=lambda row: -row["probability"])

    def listed(wrong: bool, most: int) -> list[dict[str, Any]]:
        chosen = [row for row in rows if row["wrong"] == wrong][:most]
        return [{key: value for key, value in row.items() if key != "wrong"} for row in chosen]

    several = rule.several
    return {
        "scores": classification_scores(truth, said, labels, positive)
        | probability_scores(probabilities, truth, labels, positive)
        | {"thresholds": rule.thresholds, "temperature": rule.temperature},
        "baseline": classification_scores(truth, word_count_answers(train, test, labels, several), labels, positive),
        "svm": classification_scores(truth, svm_answers(train, test, labels, several), labels, positive),
        "mistakes": listed(True, SHOWN),
        "right": listed(False, 10),
        "sizes": {name: len(members) for name, members in splits.items()},
    }


def finetune_classify(options: FinetuneClassify) -> tuple[dict[str, Any], str]:
    """`pellucid finetune classify`."""
    config, lora = fit_config(options, CLASSIFY_RATES), lora_of(options)
    columns = Columns(options.text_column, options.label_column, options.multi_label)
    splits = read_splits(options.data, options.val, options.test, columns, options.seed)
    rule = Rule(options.multi_label, options.cut)
    way = Way(options.train, options.class_weight, lora, options.teacher == "linear" and teachable(splits, rule))
    config = with_steps(config, options.epochs, examples_of(len(splits["train"]), way))
    with joined():
        resume = goes_on(options.resume, options.out)
        begin = recorded("classify", options, config, resume, options.data, options.val, options.test)
        result = finetune_classifier(options.run, splits, config, options.out, resume, rule, way, begin)
    write_json(options.out / "scores.json", result)
    scores, beside = result["scores"], {"baseline_f1": result["baseline"]["f1"], "svm_f1": result["svm"]["f1"]}
    short = {key: value for key, value in scores.items() if key not in ("curves", "bins")}
    return {"out": str(options.out), **short, **beside}, "\n".join(report_lines(result, options.out))


def teachable(splits: dict[str, list[Labelled]], rule: Rule) -> bool:
    """Whether a teacher can learn enough from the training split; that there is none is said."""
    enough = can_teach(splits["train"], all_labels(splits, rule.several), rule.several)
    if not enough:
        inform("a label is on too few texts for a teacher to judge by; the labels alone are learnt.")
    return enough


def examples_of(texts: int, way: Way) -> int:
    """What one pass over so many training texts meets: a teacher brings made-up ones along."""
    return texts + (made_up_count(texts) // rounds(texts) if way.taught else 0)


def report_lines(result: dict[str, Any], out: Path) -> list[str]:
    """The scores for a reader: each with its interval, the simpler means, each class."""
    scores = result["scores"]

    def with_interval(name: str) -> str:
        low, high = scores["intervals"][name]
        return f"{scores[name]:.3f} ({low:.3f} to {high:.3f})"

    of = f"of {scores['positive']!r}" if scores["positive"] is not None else "(mean over classes)"
    lines = [
        f"{out}: {scores['texts']} held-out texts, 95 % intervals in brackets",
        f"accuracy {with_interval('accuracy')}   F1 {of} {with_interval('f1')}",
        f"precision {with_interval('precision')}   recall {with_interval('recall')}",
        f"beside it, F1: words and characters with a linear SVM {result['svm']['f1']:.3f}, "
        f"word counts {result['baseline']['f1']:.3f}",
        f"calibration error {scores['calibration_error']:.3f} at a temperature of {scores['temperature']:.2f}",
    ]
    for label, limit in list(scores["thresholds"].items())[:20]:
        lines.append(f"{printable(label)!r} is said from a probability of {limit:.3f} on (chosen on the val split)")
    width = max(len(label) for label in scores["labels"][:30])
    lines.append(f"{'':<{width}}  precision  recall     F1  texts")
    for label, row in list(scores["by_class"].items())[:30]:
        shares = f"{row['precision']:9.3f} {row['recall']:7.3f} {row['f1']:6.3f}"
        lines.append(f"{printable(label):<{width}}  {shares} {row['texts']:6}")
    for row in result["mistakes"][:3]:
        said = f"said {row['answer']!r} with {row['probability']:.2f}, is {row['truth']!r}"
        lines.append(f"wrong: {said}: {one_line(row['text'])}")
    return [*lines, f"All of it: {out / 'scores.json'}", f"Next: pellucid classify {out} 'some text'"]
