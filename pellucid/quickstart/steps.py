"""The whole way, from raw text to an assistant, as one short script: read `quickstart` as a table of contents.

The folder is a run folder (the pretrained model) with two more in it: `classifier/` and `assistant/`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pellucid.compute import pick_device
from pellucid.config import PRESETS, FitConfig, ModelConfig, as_dict
from pellucid.finetune.answers import same_text
from pellucid.finetune.classify import Rule
from pellucid.finetune.classify_commands import Way, finetune_classifier, teachable
from pellucid.finetune.instruct_commands import Lead, finetune_assistant
from pellucid.finetune.instructions import Example, read_instructions, split_examples
from pellucid.finetune.labelled import read_labelled
from pellucid.finetune.recipes import CLASSIFY_RATES, INSTRUCT_RATES, hash_of, rates_of
from pellucid.finetune.splits import split_labelled
from pellucid.model.gpt import GPT
from pellucid.model.outline import Outline
from pellucid.options import Quickstart
from pellucid.pretrain.commands import EVALUATION_TOKENS, train_language_model
from pellucid.pretrain.evaluate import Measured, bytes_per_token, limited, measure, parts_of
from pellucid.pretrain.fit import Begin
from pellucid.pretrain.language import LanguageModelling
from pellucid.pretrain.ngram import NGram, unigram_nats
from pellucid.pretrain.plan import RandomText
from pellucid.pretrain.speed import TRIAL_TOKENS, measure_speed
from pellucid.quickstart.report import write_reports
from pellucid.quickstart.run import Results, Run
from pellucid.quickstart.shown import (
    farewell,
    show_assistant,
    show_classifier,
    show_evaluation,
    show_model,
    show_pretrain,
    show_text,
)
from pellucid.runtime import read_json, write_run
from pellucid.text import tinyworld
from pellucid.text.bpe import BPETokenizer
from pellucid.text.character import CharacterTokenizer
from pellucid.text.documents import Document, read_documents
from pellucid.text.shard_writer import write_shards
from pellucid.text.shards import Shards
from pellucid.text.splits import split_documents
from pellucid.text.tinyworld.files import write_documents, write_instructions, write_lesson, write_messages
from pellucid.text.word import WordTokenizer

MESSAGES = 1 / 6  # of the text: what the user's own labelled texts are repeated for, or they would hardly be met
MOST_REPEATS = 10
PRETRAINING, TUNING = 0.5, 0.4  # of the time; tuning at most
VOCABULARY = 4096  # tokens
SMALL, LARGE = "laptop", "laptop-large"
LONG = 8.0  # minutes from which on the larger model is thought of, which reads a third in the same time
ENOUGH = 5e6  # tokens of the embedded corpus that it has to read to be the better one (docs/performance.md)
# Documents for each minute. Where a run reads a third of them only, it meets too many of the dialogues that they begin
# with, and little else (docs/performance.md).
DOCUMENTS = {SMALL: 7500, LARGE: 4500}
CONTEXT = {SMALL: 128, LARGE: 256}  # tokens of a training window


@dataclass(frozen=True)
class Course:
    """What instruction tuning begins with: a share of its time, at a share of its rates, divided among lessons."""

    share: float
    rate: float
    lessons: dict[str, tuple[float, float]]
    """Name → its part of that time at most, and the held-out loss at which it is learnt sooner."""


# Which thing, which place, whose: a model tells these apart only when asked about stories alone for a while, at low
# rates. What somebody has takes three lessons to be learnt, of so many steps together; where there is no time for them,
# the last one has to do (docs/performance.md). A step of a lesson takes as long as so many tokens of pretraining.
BRIEF = Course(0.23, 0.35, {"names": (1.0, 0.0)})
THOROUGH = Course(0.45, 0.55, {"one-name": (0.2, 0.05), "names-and-others": (0.65, 0.03), "names": (0.15, 0.015)})
THOROUGH_STEPS, STEP_TOKENS = 1950, 1150


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


def make_text(run: Run) -> Results:
    """Documents, a tokenizer trained on them, and token shards."""
    options, corpus, preset = run.options, run.out / "corpus", preset_for(run)
    sources = list(options.text)
    if not sources:
        count = max(600, int(DOCUMENTS[preset] * run.minutes))
        sources = [corpus / "documents.jsonl"]
        write_documents(sources[0], islice(tinyworld.documents(options.seed), count), options.seed)
    if not options.labels:
        write_messages(corpus / "messages.jsonl", max(600, int(1600 * run.minutes)), options.seed)
    if not options.instructions:
        write_instructions(corpus / "instructions.jsonl", max(1000, int(12000 * run.minutes)), options.seed)
    splits = split_documents(read_documents(sources))
    splits["train"] += repeated(own_messages(run), splits["train"])
    train = [document.text for document in splits["train"]]
    tokenizer = BPETokenizer.train(train, vocab_size=VOCABULARY)
    shards = write_shards(splits, tokenizer, run.out / "shards")
    sentence = first_sentence(splits["test"][0])
    views = {
        "word": WordTokenizer.train(train[:2000], vocab_size=VOCABULARY),
        "char": CharacterTokenizer.train(train[:2000]),
        "bpe": tokenizer,
    }
    return {
        "preset": preset,
        "source": [str(path) for path in options.text] or "embedded",
        "documents": {name: shards.documents(name) for name in shards.splits},
        "tokens": {name: len(shards.tokens(name)) for name in shards.splits},
        "vocab_size": tokenizer.vocab_size,
        "sentence": sentence,
        "views": {kind: [piece.text for piece in view.pieces(sentence)] for kind, view in views.items()},
    }


def preset_for(run: Run) -> str:
    """The larger model where it has time to become the better one. On the embedded corpus this machine's speed says."""
    if run.minutes < LONG:
        return SMALL
    if run.options.text:
        return LARGE
    config = FitConfig(minutes=run.minutes, batch_size=8)
    with torch.random.fork_rng():
        model = GPT(replace(PRESETS[LARGE], vocab_size=VOCABULARY)).to(pick_device(config.device))
    speed = measure_speed(model, RandomText(config, VOCABULARY, CONTEXT[LARGE]), config)
    return LARGE if PRETRAINING * 60 * run.minutes / speed.seconds_per_step * TRIAL_TOKENS >= ENOUGH else SMALL


def preset_of(run: Run) -> str:
    """The one that was chosen with the text. Runs that were begun before it was noted went by the minutes alone."""
    return str(run.results["text"].get("preset", SMALL if run.minutes < LONG else LARGE))


def own_messages(run: Run) -> list[Document]:
    """The texts that the user's own classifier will be trained on: the model should know their words and spellings."""
    if not run.options.labels:
        return []
    train = split_labelled(read_labelled(run.options.labels), seed=run.options.seed)["train"]
    return [Document(example.text, str(run.options.labels)) for example in train if example.text.strip()]


def repeated(messages: list[Document], beside: list[Document]) -> list[Document]:
    """Few and short texts as often as it takes to be a share of all text worth the name (docs/performance.md)."""
    size, rest = (sum(len(document.text) for document in some) for some in (messages, beside))
    times = round(MESSAGES / (1 - MESSAGES) * rest / max(size, 1))
    return messages * max(1, min(times, MOST_REPEATS))


def first_sentence(document: Document) -> str:
    """A short beginning of a document, to look at."""
    text = " ".join(document.text[:600].split())
    end = text.find(". ", 20)
    return text[: end + 1] if 0 < end < 160 else text[:120]


def shape_of(run: Run) -> ModelConfig:
    """The shape of the model: a larger one where there is time to train it, a tiny one where there is hardly any."""
    shape = replace(PRESETS[preset_of(run)], vocab_size=run.results["text"]["vocab_size"])
    return (
        replace(shape, d_model=64, n_layers=2, n_heads=2, n_kv_heads=0, d_head=0, d_ff=0)
        if run.minutes < 0.5
        else shape
    )


def describe_model(run: Run) -> Results:
    """Each part of the model, its parameters, its share."""
    shape = shape_of(run)
    with Outline():
        model = GPT(shape)
    total = model.parameter_count()
    parts = [[name, count, count / total] for name, count in model.parts()]
    return {"parts": parts, "parameters": total, "config": as_dict(shape)}


def pretrain(run: Run) -> Results:
    """Train the model from scratch for its share of the time."""
    config = FitConfig(minutes=PRETRAINING * run.minutes, batch_size=8, decay_share=0.9, seed=run.options.seed)
    shards = Shards.open(run.out / "shards")
    context = training_context(run, shards)
    return train_language_model(
        shards, shape_of(run), config, context, run.out, resume=True, in_order=not run.options.text
    )


def training_context(run: Run, shards: Shards) -> int:
    """Tokens of a training window: short where there is little time, never longer than the text."""
    return min(CONTEXT[preset_of(run)], len(shards.tokens("train")) - 2)


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


def classify(run: Run) -> Results:
    """Finetune a copy of the model to tell spam from the rest."""
    options = run.options
    data = options.labels or run.out / "corpus" / "messages.jsonl"
    labelled = split_labelled(read_labelled(data), seed=options.seed)
    rates = rates_of(run.out, CLASSIFY_RATES)
    # the embedded messages are many, and learnt in seconds; a teacher helps with few, and odd ones
    taught = options.labels is not None and teachable(labelled, Rule())
    minutes = (0.24 if taught else 0.04) * run.minutes
    config = finetuning(run, minutes, evaluate_share=0.25, **rates)
    out = run.out / "classifier"
    begin = noted(run, "classify", out, data)
    return finetune_classifier(run.out, labelled, config, out, resume=True, way=Way(taught=taught), begin=begin)


def instruct(run: Run) -> Results:
    """Finetune a copy of the model to follow instructions, in what is left of the time."""
    data = run.options.instructions or run.out / "corpus" / "instructions.jsonl"
    examples = split_examples(read_instructions(data), seed=run.options.seed)
    left = run.minutes - run.spent() / 60 - 0.08 * run.minutes  # the rest answers the test questions and reports
    minutes = max(0.1 * run.minutes, min(left, TUNING * run.minutes))
    config = finetuning(run, minutes, decay_share=0.9, evaluate_share=0.2, **INSTRUCT_RATES)
    is_right, leads = same_text, []
    if not run.options.instructions:
        is_right, leads = solves, leading(run, config)
        config = replace(config, minutes=minutes - sum(lead.config.minutes for lead in leads))
        if len(leads) > 1:  # what was hard to learn is practised on, where there is time for it
            examples["train"] += leads[-1].splits["train"][: len(examples["train"]) // 8]
    questions = max(50, min(1000, int(1000 * run.minutes)))
    shards = Shards.open(run.out / "shards")  # the text goes on beside the answers, so that its facts are not forgotten
    replay = LanguageModelling(shards, replace(config, batch_size=2), training_context(run, shards))
    out = run.out / "assistant"
    return finetune_assistant(
        run.out, examples, config, out, True, is_right, questions=questions, replay=replay, leads=leads,
        begin=noted(run, "instruct", out, data),
    )  # fmt: skip


def finetuning(run: Run, minutes: float, **more: Any) -> FitConfig:
    """How to finetune for so many minutes: in the precision that pretraining has found to be the faster one."""
    return FitConfig(minutes=minutes, seed=run.options.seed, dtype=run.results["pretrain"]["dtype"], **more)


def noted(run: Run, verb: str, out: Path, data: Path) -> Begin:
    """What writes run.json of a finetuning as it begins: `compare` asks what its seed held out."""

    def begin(config: FitConfig, tried: dict[str, float]) -> None:
        settings = as_dict(config) | {"run": str(run.out), "data": str(data)}
        write_run(out, f"finetune {verb}", settings, hash_of(data))

    return begin


def leading(run: Run, config: FitConfig) -> list[Lead]:
    """How questions about stories come first, lesson by lesson, before instruction tuning by `config`."""
    speed = run.results["pretrain"]["tokens_per_s"]
    steps = max(1.0, TUNING * 60 * run.minutes * speed / STEP_TOKENS)  # of lessons, were there nothing else
    course = THOROUGH if THOROUGH.share * steps >= THOROUGH_STEPS else BRIEF
    settings: Results = {"lr": course.rate * config.lr, "matrix_lr": course.rate * config.matrix_lr}
    settings |= {"schedule": "constant", "evaluate_share": 0.1}
    leads = []
    for name, (part, enough) in course.lessons.items():
        share = course.share * part
        path = run.out / "corpus" / f"lesson-{name}.jsonl"
        write_lesson(path, name, max(100, int(1.3 * share * steps * config.batch_size)), run.options.seed)
        splits = split_examples(read_instructions(path), seed=run.options.seed)
        own: Results = {"minutes": share * config.minutes, "enough": enough}
        leads.append(Lead(name, splits, replace(config, **settings, **own)))
    return leads


def solves(example: Example, answer: str) -> bool:
    """Whether an answer is right in tinyworld, checked by its program."""
    fields = (example.instruction, example.input, example.output, example.family, example.split)
    return tinyworld.is_right(tinyworld.Instruction(*fields), answer)
