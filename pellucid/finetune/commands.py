"""What the command line does with finetuning: make a classifier or an assistant, and classify texts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pellucid.config import FitConfig, as_dict
from pellucid.finetune.classify import Classification, Classifier, encode_texts, predict
from pellucid.finetune.instruct import (
    InstructionTuning,
    answer_all,
    assistant_scores,
    prepare_model,
    same_text,
    save_assistant,
)
from pellucid.finetune.instructions import Example, nearest_answers, read_instructions, split_examples
from pellucid.finetune.labelled import Labelled, read_labelled, split_labelled
from pellucid.finetune.scores import classification_scores, word_count_answers
from pellucid.model.gpt import GPT
from pellucid.options import Classify, FinetuneClassify, FinetuneInstruct
from pellucid.pretrain.fit import fit
from pellucid.pretrain.language import LanguageModelling
from pellucid.runtime import ConfigError, DataError, pick_device, printable, problem, sha256, write_json, write_run
from pellucid.text.documents import read_text
from pellucid.text.tokenizer import Tokenizer

# The recipes: found by measuring on the embedded corpus and on SMS messages (docs/performance.md).
CLASSIFY_RATES = {"lr": 1e-3, "matrix_lr": 3e-3, "weight_decay": 0.05}
INSTRUCT_RATES = {"lr": 3.5e-3, "matrix_lr": 0.011, "weight_decay": 0.05}


def finetune_classifier(
    base: Path, splits: dict[str, list[Labelled]], config: FitConfig, out: Path, resume: bool
) -> dict[str, Any]:
    """Finetune the model in `base` on labelled texts, save it, and score it once on the test split."""
    torch.manual_seed(config.seed)
    gpt, tokenizer = GPT.load(base).to(pick_device(config.device)), Tokenizer.load(base)
    labels = sorted({example.label for members in splits.values() for example in members})
    model = Classifier(gpt, labels)
    task = Classification(splits, labels, tokenizer, config, gpt.config.context_length)
    fit(model, task, config, out, resume)
    model.save(out, tokenizer)
    test = splits["test"]
    probabilities = predict(model, task.ids["test"], tokenizer.end_of_text)
    answers = [labels[number] for number in probabilities.argmax(axis=1)]
    truth = [example.label for example in test]
    rows = [
        {"text": example.text, "truth": example.label, "answer": answer, "probability": float(row.max())}
        for example, answer, row in zip(test, answers, probabilities, strict=True)
    ]
    rows.sort(key=lambda row: -row["probability"])
    return {
        "scores": classification_scores(truth, answers, labels),
        "baseline": classification_scores(truth, word_count_answers(splits["train"], test), labels),
        "mistakes": [row for row in rows if row["truth"] != row["answer"]][:20],
        "right": [row for row in rows if row["truth"] == row["answer"]][:10],
        "sizes": {name: len(members) for name, members in splits.items()},
    }


def finetune_assistant(
    base: Path,
    splits: dict[str, list[Example]],
    config: FitConfig,
    out: Path,
    resume: bool,
    is_right: Callable[[Example, str], bool] = same_text,
    questions: int = 1000,
    replay: LanguageModelling | None = None,
) -> dict[str, Any]:
    """Finetune the model in `base` on instructions, save it, and let it answer up to `questions` of the test split."""
    torch.manual_seed(config.seed)
    model, tokenizer = GPT.load(base).to(pick_device(config.device)), Tokenizer.load(base)
    prepare_model(model, tokenizer)
    task = InstructionTuning(splits, tokenizer, config, model.config.context_length, replay)
    fit(model, task, config, out, resume)
    save_assistant(model, tokenizer, out)
    test = splits["test"][:questions]
    answers = answer_all(model, tokenizer, test, is_right)
    nearest = nearest_answers(splits["train"], test)
    baseline = [
        replace(answer, said=said, right=is_right(answer.example, said), ended=True)
        for answer, said in zip(answers, nearest, strict=True)
    ]
    shown = sorted(answers, key=lambda answer: answer.right)[:40] + [a for a in answers if a.right][:40]
    return {
        "scores": assistant_scores(answers),
        "baseline": assistant_scores(baseline),
        "answers": [
            {
                "instruction": answer.example.instruction,
                "input": answer.example.input,
                "said": answer.said,
                "expected": answer.example.output,
                "right": answer.right,
                "ended": answer.ended,
                "family": answer.example.family,
            }
            for answer in dict.fromkeys(shown)
        ],
        "sizes": {name: len(members) for name, members in splits.items()},
    }


def steps_of(epochs: float, examples: int, batch_size: int) -> int:
    """Optimizer steps of so many passes over the examples."""
    if epochs <= 0 or batch_size < 1:
        found = f"{epochs} epochs and a batch size of {batch_size}"
        raise ConfigError(problem("finetuning", found, "both above 0", "Leave them out for the recipe's."))
    return max(1, round(epochs * examples / batch_size))


def check_out(options: FinetuneClassify | FinetuneInstruct) -> None:
    """Refuse to write the finetuned model over the one that it is made of."""
    if options.out.resolve() == options.run.resolve():
        advice = "The pretrained model would be lost."
        raise ConfigError(problem("--out", f"the folder of the model itself, {options.out}", "another one", advice))


def fit_config(options: FinetuneClassify | FinetuneInstruct, examples: int, rates: dict[str, float]) -> FitConfig:
    """The recipe's settings with what the command line asks for; another --lr scales both rates."""
    scale = options.lr / rates["lr"] if options.lr else 1.0
    scaled = {**rates, "lr": rates["lr"] * scale, "matrix_lr": rates["matrix_lr"] * scale}
    steps = steps_of(options.epochs, examples, options.batch_size)
    return FitConfig(steps=steps, batch_size=options.batch_size, seed=options.seed, **scaled)  # type: ignore[arg-type]


def finetune_classify(options: FinetuneClassify) -> tuple[dict[str, Any], str]:
    """`pellucid finetune classify`."""
    check_out(options)
    splits = split_labelled(read_labelled(options.data), seed=options.seed)
    config = fit_config(options, len(splits["train"]), CLASSIFY_RATES)
    result = finetune_classifier(options.run, splits, config, options.out, options.resume)
    write_run(options.out, "finetune classify", as_dict(options) | as_dict(config), _hash(options.data))
    write_json(options.out / "scores.json", result)
    scores, baseline = result["scores"], result["baseline"]
    return {"out": str(options.out), **scores, "baseline_f1": baseline["f1"]}, (
        f"{options.out}: accuracy {scores['accuracy']:.3f}  precision {scores['precision']:.3f}  "
        f"recall {scores['recall']:.3f}  F1 {scores['f1']:.3f}  (word counts: F1 {baseline['f1']:.3f}) "
        f"on {scores['texts']} held-out texts\nNext: pellucid classify {options.out} 'some text'"
    )


def finetune_instruct(options: FinetuneInstruct) -> tuple[dict[str, Any], str]:
    """`pellucid finetune instruct`."""
    check_out(options)
    splits = split_examples(read_instructions(options.data), seed=options.seed)
    config = fit_config(options, len(splits["train"]), INSTRUCT_RATES)
    result = finetune_assistant(options.run, splits, config, options.out, options.resume)
    write_run(options.out, "finetune instruct", as_dict(options) | as_dict(config), _hash(options.data))
    write_json(options.out / "scores.json", result)
    scores = result["scores"]
    return {"out": str(options.out), **scores, "baseline_exact_match": result["baseline"]["exact_match"]}, (
        f"{options.out}: {scores['exact_match']:.1%} of {scores['questions']} held-out questions answered exactly "
        f"(nearest example: {result['baseline']['exact_match']:.1%}), {scores['stop_rate']:.1%} end by themselves\n"
        f"Next: pellucid chat {options.out}"
    )


def _hash(path: Path) -> dict[str, str]:
    return {path.name: sha256(path)}


def classify(options: Classify) -> tuple[dict[str, Any], str]:
    """`pellucid classify`: texts from the command line, a file, or standard input."""
    texts = texts_to_classify(options)
    model, tokenizer = Classifier.load(options.run), Tokenizer.load(options.run)
    rows = encode_texts(texts, tokenizer, model.gpt.config.context_length)
    probabilities = predict(model, rows, tokenizer.end_of_text)
    results: list[dict[str, Any]] = [
        {"text": text, "label": model.labels[int(row.argmax())], "probability": float(row.max())}
        for text, row in zip(texts, probabilities, strict=True)
    ]
    width = max(map(len, model.labels))
    lines = [f"{r['label']:<{width}}  {r['probability']:.3f}  {_one_line(r['text'])}" for r in results]
    return {"results": results}, "\n".join(lines)


def texts_to_classify(options: Classify) -> Sequence[str]:
    """The texts given, or a text on each line of the file; DataError where there is none."""
    if options.texts:
        return options.texts
    if options.file is None and sys.stdin.isatty():
        advice = "Give texts in quotation marks, or --file FILE (- is standard input)."
        raise DataError(problem("classify", "no text", "one or more", advice))
    piped = options.file is None or str(options.file) == "-"
    lines = (sys.stdin.read() if piped else read_text(Path(str(options.file)))).splitlines()
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise DataError(problem(options.file or "standard input", "no text", "a text on each line", "Check it."))
    return texts


def _one_line(text: str) -> str:
    shown = printable(text).replace("\n", " ")
    return shown if len(shown) <= 100 else shown[:99] + "…"
