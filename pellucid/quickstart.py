"""The whole way, from raw text to an assistant, as one short script: read `quickstart` as a table of contents.

Each step leaves its results in a file, so that a run that was stopped goes on where it was. The folder is a run folder
(the pretrained model) with two more in it: `classifier/` and `assistant/`.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pellucid.config import PRESETS, FitConfig, ModelConfig, as_dict
from pellucid.finetune.commands import CLASSIFY_RATES, INSTRUCT_RATES, finetune_assistant, finetune_classifier
from pellucid.finetune.instruct import same_text
from pellucid.finetune.instructions import Example, read_instructions, split_examples
from pellucid.finetune.labelled import read_labelled, split_labelled
from pellucid.model.gpt import GPT
from pellucid.options import Quickstart
from pellucid.pretrain.commands import EVALUATION_TOKENS, train_language_model
from pellucid.pretrain.evaluate import Measured, bytes_per_token, limited, measure, parts_of
from pellucid.pretrain.language import LanguageModelling
from pellucid.pretrain.ngram import NGram, unigram_nats
from pellucid.runtime import (
    ConfigError,
    PellucidError,
    peak_memory_bytes,
    printable,
    problem,
    read_json,
    sha256,
    write_json,
)
from pellucid.see.report import write_report
from pellucid.text import tinyworld
from pellucid.text.bpe import BPETokenizer
from pellucid.text.character import CharacterTokenizer
from pellucid.text.documents import Document, read_documents
from pellucid.text.shard_writer import write_shards
from pellucid.text.shards import Shards
from pellucid.text.splits import split_documents
from pellucid.text.tinyworld.files import write_documents, write_instructions, write_messages
from pellucid.text.word import WordTokenizer
from pellucid.version import __version__

Results = dict[str, Any]


def quickstart(options: Quickstart) -> tuple[Results, str]:
    """All three stages end to end; returns what report.json holds, and what to type next."""
    run = Run.open(options)
    run.step("text", "1  Text: documents, tokenizers, shards", make_text, show_text)
    run.step("model", "2  Model: a GPT of its parts", describe_model, show_model)
    run.step("pretrain", "3  Pretraining: predict the next token", pretrain, show_pretrain)
    run.step("evaluate", "4  Evaluation: beside what counting can do", evaluate, show_evaluation)
    run.step("classify", "5  Classification: spam or not", classify, show_classifier)
    run.step("instruct", "6  Instructions: a personal assistant", instruct, show_assistant)
    if run.news or not (run.out / "report.json").is_file():
        write_reports(run)
    report = read_json(run.out / "report.json")
    return report, farewell(run, report)


# ---------------------------------------------------------------- the run and its clock


@dataclass
class Run:
    """One quickstart: its options, its folder, and the results of the steps done so far."""

    options: Quickstart
    results: dict[str, Results]
    news: bool = False  # whether this sitting did any step

    @classmethod
    def open(cls, options: Quickstart) -> Run:
        """Begin in `options.out`, or go on there; a folder of other settings is refused."""
        if not 0 <= options.minutes < float("inf"):
            raise ConfigError(problem("--minutes", str(options.minutes), "0 or more", "5.2 is a good first run."))
        inputs = [*options.text, *(path for path in (options.labels, options.instructions) if path)]
        hashes = {str(path): sha256(path) for path in inputs if path.is_file()}
        settings = {**as_dict(options), "out": "", "json": False, "files": hashes}
        file = options.out / "results" / "settings.json"
        begun = (options.out / "results" / "text.json").is_file()
        if begun and read_json(file) != settings:
            raise PellucidError(
                f"{options.out}: holds a quickstart with other settings or files. Give another --out, or remove it."
            )
        if not file.is_file() and options.out.is_dir() and any(options.out.iterdir()):
            raise PellucidError(f"{options.out}: is not empty and holds no quickstart. Give another --out.")
        if not begun:
            check_inputs(options)  # a mistake in any of the files should show now, not after the pretraining
            write_json(file, settings)
        return cls(options, {})

    @property
    def out(self) -> Path:
        """The folder."""
        return self.options.out

    @property
    def minutes(self) -> float:
        """The time to aim at for everything."""
        return self.options.minutes or (15.0 if self.options.text else 5.2)

    def step(self, name: str, title: str, work: Callable[[Run], Results], show: Callable[[Results], str]) -> None:
        """Do a step, or take its result from an earlier, stopped run; then show it."""
        say(f"\n── {title}")
        file = self.out / "results" / f"{name}.json"
        if file.is_file():
            self.results[name] = read_json(file)
            say("(done before)")
        else:
            self.news = True
            with self.clock(name) as seconds:
                result = work(self)
            peak = round(peak_memory_bytes() / 2**30, 2)
            self.results[name] = {**result, "seconds": round(seconds(), 2), "peak_memory_gb": peak}
            write_json(file, self.results[name])
        say(show(self.results[name]))

    @contextmanager
    def clock(self, name: str) -> Iterator[Callable[[], float]]:
        """Counts the seconds of a step over all its sittings; what a stopped one took is kept in a file."""
        file, began = self.out / "results" / f"{name}.stopped.json", time.monotonic()
        before = float(read_json(file)["seconds"]) if file.is_file() else 0.0
        try:
            yield lambda: before + time.monotonic() - began
        except BaseException:
            with suppress(PellucidError, OSError):
                write_json(file, {"seconds": before + time.monotonic() - began})
            raise
        file.unlink(missing_ok=True)

    def spent(self) -> float:
        """Seconds of the steps done so far."""
        return float(sum(result["seconds"] for result in self.results.values()))


def say(text: str) -> None:
    """A line about the progress, on stderr: stdout is left to the result."""
    print(printable(text), file=sys.stderr, flush=True)


# ---------------------------------------------------------------- 1 text


def make_text(run: Run) -> Results:
    """Documents, a tokenizer trained on them, and token shards."""
    options, corpus = run.options, run.out / "corpus"
    sources = list(options.text)
    if not sources:
        count = max(600, int(7500 * run.minutes))
        sources = [corpus / "documents.jsonl"]
        write_documents(sources[0], islice(tinyworld.documents(options.seed), count), options.seed)
    if not options.labels:
        write_messages(corpus / "messages.jsonl", max(600, int(1600 * run.minutes)), options.seed)
    if not options.instructions:
        write_instructions(corpus / "instructions.jsonl", max(1000, int(6000 * run.minutes)), options.seed)
    splits = split_documents(read_documents(sources))
    train = [document.text for document in splits["train"]]
    tokenizer = BPETokenizer.train(train, vocab_size=4096)
    shards = write_shards(splits, tokenizer, run.out / "shards")
    sentence = first_sentence(splits["test"][0])
    views = {
        "word": WordTokenizer.train(train[:2000], vocab_size=4096),
        "char": CharacterTokenizer.train(train[:2000]),
        "bpe": tokenizer,
    }
    return {
        "source": [str(path) for path in options.text] or "embedded",
        "documents": {name: shards.documents(name) for name in shards.splits},
        "tokens": {name: len(shards.tokens(name)) for name in shards.splits},
        "vocab_size": tokenizer.vocab_size,
        "sentence": sentence,
        "views": {kind: [piece.text for piece in view.pieces(sentence)] for kind, view in views.items()},
    }


def check_inputs(options: Quickstart) -> None:
    """Read all files of the user's own once, for the errors in them."""
    if options.text:
        split_documents(read_documents(options.text))
    if options.labels:
        split_labelled(read_labelled(options.labels), seed=options.seed)
    if options.instructions:
        split_examples(read_instructions(options.instructions), seed=options.seed)


def read_inputs(run: Run) -> tuple[Any, Any]:
    """The splits of the labelled texts and of the instructions, own or embedded."""
    options, corpus = run.options, run.out / "corpus"
    labelled = read_labelled(options.labels or corpus / "messages.jsonl")
    examples = read_instructions(options.instructions or corpus / "instructions.jsonl")
    return split_labelled(labelled, seed=options.seed), split_examples(examples, seed=options.seed)


def first_sentence(document: Document) -> str:
    """A short beginning of a document, to look at."""
    text = " ".join(document.text[:600].split())
    end = text.find(". ", 20)
    return text[: end + 1] if 0 < end < 160 else text[:120]


def show_text(result: Results) -> str:
    """The same sentence in three kinds of tokens, and the sizes of the splits."""
    lines = [f"{kind:>5}: {'|'.join(pieces)}  ({len(pieces)})" for kind, pieces in result["views"].items()]
    sizes = [f"{name} {result['documents'][name]:,} ({result['tokens'][name]:,} tokens)" for name in result["tokens"]]
    return "\n".join([*lines, "documents: " + ", ".join(sizes)])


# ---------------------------------------------------------------- 2 model


def shape_of(run: Run) -> ModelConfig:
    """The shape of the model: a larger one where there is time to train it, a tiny one where there is hardly any."""
    shape = replace(
        PRESETS["laptop" if run.minutes < 8 else "laptop-large"], vocab_size=run.results["text"]["vocab_size"]
    )
    return (
        replace(shape, d_model=64, n_layers=2, n_heads=2, n_kv_heads=0, d_head=0, d_ff=0)
        if run.minutes < 0.5
        else shape
    )


def describe_model(run: Run) -> Results:
    """Each part of the model, its parameters, its share."""
    shape = shape_of(run)
    with torch.device("meta"):
        model = GPT(shape)
    total = model.parameter_count()
    parts = [[name, count, count / total] for name, count in model.parts()]
    return {"parts": parts, "parameters": total, "config": as_dict(shape)}


def show_model(result: Results) -> str:
    """The parts as a table."""
    lines = [f"{name:<32}{count:>12,}{share:>8.1%}" for name, count, share in result["parts"]]
    return "\n".join([*lines, f"{'all':<32}{result['parameters']:>12,}"])


# ---------------------------------------------------------------- 3 pretraining


def pretrain(run: Run) -> Results:
    """Train the model from scratch for its share of the time."""
    config = FitConfig(minutes=0.53 * run.minutes, batch_size=8, decay_share=0.9, seed=run.options.seed)
    shards = Shards.open(run.out / "shards")
    context = training_context(run, shards)
    return train_language_model(
        shards, shape_of(run), config, context, run.out, resume=True, in_order=not run.options.text
    )


def training_context(run: Run, shards: Shards) -> int:
    """Tokens of a training window: short where there is little time, never longer than the text."""
    return min(128 if run.minutes < 8 else 256, len(shards.tokens("train")) - 2)


def show_pretrain(result: Results) -> str:
    """What was done."""
    return (
        f"{result['steps']:,} steps, {result['tokens']:,} tokens at {result['tokens_per_s']:,.0f} tokens/s "
        f"in {result['dtype']}; validation loss {result['val_loss']:.3f}"
    )


# ---------------------------------------------------------------- 4 evaluation


def evaluate(run: Run) -> Results:
    """The test split by the model, by unigrams and by n-grams; on the embedded corpus also the generator's entropy."""
    shards, model = Shards.open(run.out / "shards"), GPT.load(run.out)
    sizes = bytes_per_token(shards.tokenizer(), model.config.vocab_size)
    train, test = np.asarray(shards.tokens("train")), np.asarray(shards.tokens("test"))
    offsets = shards.offsets("test")
    parts = limited(list(parts_of(offsets, model.config.context_length)), EVALUATION_TOKENS)
    ngram = NGram(train, shards.vocab_size, order=4)

    def counted(nats: np.ndarray[Any, Any]) -> Results:
        """The same parts, judged by the nats of every token but the first."""
        ends = [(part.start + part.fresh, part.start + part.length) for part in parts]
        sums = np.array([nats[a:b].sum() for a, b in ends])
        tokens = np.array([b - a for a, b in ends], dtype=np.int64)
        spelled = np.array([sizes[test[a + 1 : b + 1].astype(np.int64)].sum() for a, b in ends], dtype=np.int64)
        return Measured(sums, tokens, spelled).summary()

    nats = shards.nats("test")
    return {
        "model": measure(model, test, parts, sizes).summary(),
        "unigram": counted(unigram_nats(train, test, shards.vocab_size)),
        "ngram": counted(ngram.nats(test)),
        "ngram_order": ngram.order,
        "floor_loss": None if nats is None else nats / (len(test) - 1),
        "floor_bits_per_byte": None if nats is None else nats / np.log(2) / shards.bytes("test"),
    }


def show_evaluation(result: Results) -> str:
    """Loss, perplexity and bits per byte with their 95 % intervals, beside the baselines."""
    lines = [f"{'':>12}{'loss':>8}{'95 % interval':>18}{'perplexity':>12}{'bits/byte':>11}"]
    for name in ("unigram", "ngram", "model"):
        row = result[name]
        low, high = row["loss_interval"]
        spread = f"{low:.3f} to {high:.3f}"
        lines.append(
            f"{name:>12}{row['loss']:>8.3f}{spread:>18}{row['perplexity']:>12.1f}{row['bits_per_byte']:>11.3f}"
        )
    if result["floor_loss"] is not None:
        floor, bits = result["floor_loss"], result["floor_bits_per_byte"]
        lines.append(f"{'floor':>12}{floor:>8.3f}{'':>18}{np.exp(floor):>12.1f}{bits:>11.3f}")
    return "\n".join(lines)


# ---------------------------------------------------------------- 5 classification


def classify(run: Run) -> Results:
    """Finetune a copy of the model to tell spam from the rest."""
    labelled, _ = read_inputs(run)
    config = FitConfig(minutes=0.04 * run.minutes, seed=run.options.seed, evaluate_share=0.25, **CLASSIFY_RATES)  # type: ignore[arg-type]
    return finetune_classifier(run.out, labelled, config, run.out / "classifier", resume=True)


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


# ---------------------------------------------------------------- 6 instructions


def instruct(run: Run) -> Results:
    """Finetune a copy of the model to follow instructions, in what is left of the time."""
    _, examples = read_inputs(run)
    left = run.minutes - run.spent() / 60 - 0.08 * run.minutes  # the rest answers the test questions and reports
    minutes = max(0.1 * run.minutes, min(left, 0.4 * run.minutes))
    config = FitConfig(minutes=minutes, seed=run.options.seed, evaluate_share=0.2, **INSTRUCT_RATES)  # type: ignore[arg-type]
    is_right = same_text if run.options.instructions else solves
    questions = max(50, min(1000, int(1000 * run.minutes)))
    shards = Shards.open(run.out / "shards")  # the text goes on beside the answers, so that its facts are not forgotten
    replay = LanguageModelling(shards, replace(config, batch_size=4), training_context(run, shards))
    return finetune_assistant(
        run.out, examples, config, run.out / "assistant", True, is_right, questions=questions, replay=replay
    )


def solves(example: Example, answer: str) -> bool:
    """Whether an answer is right in tinyworld, checked by its program."""
    fields = (example.instruction, example.input, example.output, example.family, example.split)
    return tinyworld.is_right(tinyworld.Instruction(*fields), answer)


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


# ---------------------------------------------------------------- 7 report


def write_reports(run: Run) -> None:
    """report.json and report.html."""
    say("\n── 7  Report")
    began = time.monotonic()
    results = run.results
    evaluated, scores, assistant = results["evaluate"], results["classify"]["scores"], results["instruct"]
    report: Results = {
        "seconds": {name: result["seconds"] for name, result in results.items()},
        "pretrain": {
            "val_loss": results["pretrain"]["val_loss"],
            "test_loss": evaluated["model"]["loss"],
            "test_bits_per_byte": evaluated["model"]["bits_per_byte"],
            "floor_loss": evaluated["floor_loss"],
            "ngram_loss": evaluated["ngram"]["loss"],
            "tokens_per_s": results["pretrain"]["tokens_per_s"],
        },
        "classify": {key: scores[key] for key in ("accuracy", "precision", "recall", "f1")}
        | {"baseline_f1": results["classify"]["baseline"]["f1"]},
        "instruct": {
            "exact_match": assistant["scores"]["exact_match"],
            "baseline_exact_match": assistant["baseline"]["exact_match"],
            "families": assistant["scores"]["families"],
            "stop_rate": assistant["scores"]["stop_rate"],
        },
        "machine": machine() | {"peak_memory_gb": max(result["peak_memory_gb"] for result in results.values())},
        "version": __version__,
        "command": " ".join(["pellucid", *sys.argv[1:]]),
    }
    report["seconds"] |= {"report": 0.0, "total": round(run.spent(), 2)}
    write_json(run.out / "report.json", report)
    write_report(run.out, run.out / "report.html")
    seconds = round(time.monotonic() - began, 2)
    report["seconds"] |= {"report": seconds, "total": round(run.spent() + seconds, 2)}
    write_json(run.out / "report.json", report)


def machine() -> Results:
    """What the numbers were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0.0
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "platform": platform.platform(),
    }


def farewell(run: Run, report: Results) -> str:
    """Where everything is, and what to type next."""
    out = run.out
    return "\n".join(
        [
            f"Done in {report['seconds']['total']:.0f} s. The report: {out / 'report.html'}",
            "What to type next:",
            f"  pellucid chat {out / 'assistant'}",
            f"  pellucid classify {out / 'classifier'} 'you won 500 dollars, call 0817 4352 now'",
            f"  pellucid see {out} --text 'The opposite of hot is cold.'",
        ]
    )
