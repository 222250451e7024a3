"""What the command line does with a foundation model: train one on shards, and measure one on text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pellucid.compute import pick_device
from pellucid.config import FitConfig, ModelConfig, as_dict, model_config
from pellucid.model.formats.folder import check_fits, say_if_classifier
from pellucid.model.gpt import GPT
from pellucid.model.outline import Outline
from pellucid.options import Evaluate, Pretrain
from pellucid.pretrain.alike import start_alike
from pellucid.pretrain.checkpoint import began_with, newest_checkpoint
from pellucid.pretrain.distributed import (
    all_or_none,
    joined,
    leave_the_rest_to_the_first,
    under_torchrun,
    world,
)
from pellucid.pretrain.evaluate import bytes_per_token, limited, measure, parts_of
from pellucid.pretrain.fit import fit, goes_on
from pellucid.pretrain.harness import evaluate_tasks
from pellucid.pretrain.language import LanguageModelling, Stride, check_vocab, save_language_model
from pellucid.pretrain.metrics import read_lines
from pellucid.pretrain.questions import as_lines, read_questions, score_questions
from pellucid.pretrain.recipe import check_context, fit_config
from pellucid.runtime import (
    ConfigError,
    DataError,
    problem,
    progress_bar,
    read_json,
    write_run,
)
from pellucid.text.documents import read_documents
from pellucid.text.shards import Shards
from pellucid.text.tokenizer import Tokenizer

EVALUATION_TOKENS = 200_000


def train_language_model(
    shards: Shards,
    shape: ModelConfig,
    config: FitConfig,
    context: int,
    out: Path,
    resume: bool,
    in_order: bool = False,
    stride: Stride = 0,
    prompts: Sequence[str] = (),
) -> dict[str, Any]:
    """Pretrain a fresh model of `shape` on windows of `context` tokens and save it to `out`.

    `in_order` meets the documents in the order of the shards, the first time through.
    """
    check_context(context, shape)
    shards.require_documents("val")
    windows: dict[str, int | str] = {"context": context, "stride": stride}
    with all_or_none():
        if resume and world().first:
            check_same_run(out, shards.hashes(), windows, as_dict(shape))
    torch.manual_seed(config.seed)
    divided = config.shard and world().size > 1
    # what is to be divided over processes goes to their devices slice by slice
    model = GPT(shape) if divided else GPT(shape).to(pick_device(config.device))
    task = LanguageModelling(shards, config, context, in_order, stride=stride, prompts=tuple(prompts))
    start_alike(model.output_weight, task.used())
    settled: dict[str, Any] = {}

    def begin(config: FitConfig, tried: dict[str, float]) -> None:
        task.tokenizer.save(out)  # so that the workbench can look at the run while it trains
        corpus = "own" if shards.nats("test") is None else "tinyworld"  # only of that is the entropy known
        settings = as_dict(config) | {"model": as_dict(shape), "corpus": corpus} | windows
        write_run(out, "pretrain", settings, shards.hashes())
        settled.update(dtype=config.dtype, tried=tried)

    progress = fit(model, task, config, out, resume, begin)
    if divided:
        model = put_together(model)
    leave_the_rest_to_the_first()
    save_language_model(model, task, out)
    losses = [line["loss"] for line in read_lines(out / "metrics.jsonl") if line["split"] == "val"]
    kept_best = config.best or config.early_stop
    return {
        "steps": progress.step,
        "tokens": progress.tokens,
        "tokens_per_s": round(progress.tokens / max(progress.step_seconds, 1e-9), 1),
        "val_loss": progress.best if kept_best and progress.best is not None else losses[-1],
        **settled,
    }


def put_together(model: GPT) -> GPT:
    """A model of slices as one of one piece, in the memory of the first process."""
    from pellucid.pretrain.sharded import whole_weights

    weights = whole_weights(model)
    with Outline():
        result = GPT(model.config)
    if world().first:
        result.load_state_dict(weights, assign=True)
    return result


def check_same_run(out: Path, data: dict[str, str], windows: dict[str, int | str], shape: dict[str, Any]) -> None:
    """Refuse to go on with other text, other windows of it, or another model than the run in `out` began with."""
    if not (out / "run.json").is_file() or newest_checkpoint(out / "training", quiet=True) is None:
        return
    record = read_json(out / "run.json")
    before = {name: record["config"].get(name) for name in windows}
    if record["data"] != data or before != windows:
        found = "other shards" if record["data"] != data else f"{windows}, not {before}"
        advice = "Give the --data, --context and --stride of before, or another --out."
        raise DataError(problem(f"--resume {out}", found, "what the run began with", advice))
    theirs = shape | record["config"].get("model", {})
    for name in (name for name in shape if shape[name] != theirs[name]):
        found, advice = f"{name} {shape[name]}, not {theirs[name]}", "Give the --model of before, or another --out."
        raise DataError(problem(f"--resume {out}", found, "what the run began with", advice))


def pretrain(options: Pretrain) -> tuple[dict[str, Any], str]:
    """`pellucid pretrain`."""
    if options.shard and not under_torchrun():
        advice = "Start it with torchrun, which docs/scale.md shows, or leave it out."
        raise ConfigError(problem("--shard", "a single process", "several to divide the weights over", advice))
    shards = Shards.open(options.data)
    shape = model_config(options.model, shards.vocab_size)
    context = options.context or shape.context_length
    more: dict[str, Any] = {"stride": options.stride, "prompts": options.prompts}
    with joined():
        resume = goes_on(options.resume, options.out)
        begun = began_with(options.out) if resume else {}
        config = fit_config(options, shape, context, begun)
        result = train_language_model(shards, shape, config, context, options.out, resume, **more)
    return {"out": str(options.out), **result}, (
        f"{options.out}: {result['steps']:,} steps, {result['tokens']:,} tokens, "
        f"{result['tokens_per_s']:,.0f} tokens/s, validation loss {result['val_loss']:.3f}\n"
        f"Next: pellucid generate {options.out} --prompt 'Once'"
    )


def tokens_to_judge(data: Path, tokenizer: Tokenizer, vocab_size: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The tokens of the test split of shards, or of a text file, and where documents begin in them."""
    if (data / "shards.json").is_file():
        shards = Shards.open(data)
        shards.require_tokenizer(tokenizer)
        check_vocab(vocab_size, shards)
        shards.require_documents("test")
        return shards.tokens("test"), shards.offsets("test")
    rows = [tokenizer.encode(document.text) for document in read_documents([data])]
    end = tokenizer.end_of_text
    tokens = np.array([end, *(token for row in rows for token in [*row, end])])
    return tokens, np.cumsum([0, *(len(row) + 1 for row in rows)])


def check_evaluate(options: Evaluate) -> None:
    """ConfigError where there is nothing to measure on, and for what would be ignored."""
    if not options.tasks and options.data is None:
        raise ConfigError(problem("--data", "nothing to measure on", "a file or a folder of shards", "Give one."))
    ignored: dict[str, object]
    if options.tasks:
        ignored, found = {"--data": options.data, "--last-word": options.last_word}, "--tasks beside it"
    else:
        ignored, found = {"--task-folder": options.task_folder, "--limit": options.limit}, "no --tasks, which it is for"
    if names := [name for name, value in ignored.items() if value]:
        raise ConfigError(problem(", ".join(names), found, "what is measured on named in one way", "Leave it out."))


def evaluate(options: Evaluate) -> tuple[dict[str, Any], str]:
    """`pellucid evaluate`: on the test split of shards, on a text file, on questions, or on the harness's tasks."""
    check_evaluate(options)
    if options.tasks:
        found = evaluate_tasks(options.run, options.tasks, options.task_folder, options.limit)
        named = [(f"{task}, {name}", value) for task, scores in found.items() for name, value in scores.items()]
        return found, "\n".join(f"{name:>40}: {value:.4f}" for name, value in named)
    assert options.data is not None
    say_if_classifier(Path(options.run))
    model = GPT.load(options.run)
    tokenizer = Tokenizer.load(options.run)
    check_fits(model.config, tokenizer, options.run)
    if options.last_word or options.data.suffix == ".jsonl":
        questions = read_questions(options.data, options.last_word)
        if questions:
            scores = score_questions(model, tokenizer, questions)
            return scores, "\n".join(as_lines(scores))
    tokens, offsets = tokens_to_judge(options.data, tokenizer, model.config.vocab_size)
    parts = limited(list(parts_of(offsets, model.config.context_length)), EVALUATION_TOKENS)
    sizes = bytes_per_token(tokenizer, model.config.vocab_size)
    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=sum(part.length for part in parts), note="")
        result = measure(model, tokens, parts, sizes, told=lambda read: bar.advance(task, read)).summary()
    names = {"loss": "loss (nats a token)", "perplexity": "perplexity", "bits_per_byte": "bits per byte"}
    lines = []
    for key, name in names.items():
        interval = result[f"{key}_interval"]
        spread = f"   (95 %: {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
        lines.append(f"{name:>20}: {result[key]:.3f}{spread}")
    where = f"{result['parts']:,} parts" if result["parts"] > 1 else "one part: too little for an interval"
    return result, "\n".join([*lines, f"over {result['tokens']:,} tokens in {where}"])
