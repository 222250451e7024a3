"""What the command line does with preferences: an assistant and pairs of answers become a better assistant."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pellucid.config import FitConfig
from pellucid.finetune.answers import same_text
from pellucid.finetune.conversation import lacks
from pellucid.finetune.instruct_commands import Pupil, examined, summary
from pellucid.finetune.instructions import split_examples
from pellucid.finetune.lora import Lora
from pellucid.finetune.prefer import REFERENCE, Pair, PreferenceTuning, read_pairs, without_dropout
from pellucid.finetune.recipes import PREFER_RATES, fit_config, lora_of, recorded, with_steps
from pellucid.finetune.shown import show_examples
from pellucid.options import FinetunePrefer
from pellucid.pretrain.distributed import joined, leave_the_rest_to_the_first
from pellucid.pretrain.fit import Begin, check_nothing_there, fit, goes_on
from pellucid.runtime import ConfigError, DataError, problem, write_json
from pellucid.text.tokenizer import Tokenizer

QUESTIONS = 1000  # of the test split that are answered


def finetune_prefer(options: FinetunePrefer) -> tuple[dict[str, Any], str]:
    """`pellucid finetune prefer`."""
    # The reference is what the model says in float32, so the model is compared with it in float32.
    config = replace(fit_config(options, PREFER_RATES), dtype="float32")
    if not 0 < options.beta < math.inf:
        raise ConfigError(problem("--beta", str(options.beta), "a number above 0", "0.1 is the default."))
    if options.dtype == "bfloat16":
        reason = "the reference is what the model says in float32"
        raise ConfigError(problem("--dtype bfloat16", reason, "float32", "Leave it out."))
    if lack := lacks(Tokenizer.load(options.run)):
        advice = "Make one first, with `pellucid finetune instruct`."
        raise DataError(problem(options.run, lack, "an assistant", advice))
    splits = split_examples(read_pairs(options.data), seed=options.seed)
    config = with_steps(config, options.epochs, len(splits["train"]))
    with joined():
        resume = goes_on(options.resume, options.out)
        begin = recorded("prefer", options, config, resume, options.data)
        result = prefer(
            options.run, splits, config, options.out, resume, options.beta, options.train, lora_of(options),
            options.merge, begin,
        )  # fmt: skip
    write_json(options.out / "scores.json", result)
    found, text = summary(result, options.out, alone=options.train == "lora" and not options.merge)
    pairs = result["preference"]
    first = (
        f"{options.out}: the chosen answer gained on the rejected one in {pairs['preferred']:.1%} of "
        f"{pairs['pairs']} held-out pairs, by {pairs['margin']:.3f} nats on average (loss {pairs['loss']:.3f}; "
        f"before {math.log(2):.3f})"
    )
    return {**found, "preference": pairs}, f"{first}\n{text}"


def prefer(
    base: Path,
    splits: dict[str, list[Pair]],
    config: FitConfig,
    out: Path,
    resume: bool,
    beta: float = 0.1,
    train: str = "all",
    lora: Lora | None = None,
    merge: bool = True,
    begin: Begin | None = None,
) -> dict[str, Any]:
    """Teach the assistant in `base` the preferences in `splits`, save it, and score it on the test split."""
    if not resume:
        check_nothing_there(out / "training")
    pupil = Pupil.open(base, config, train, lora)
    task = PreferenceTuning(splits, pupil.tokenizer, config, pupil.model.config.context_length, beta)
    show_examples([row for pair in task.rows["train"] for row in pair], pupil.tokenizer, most=4)  # two pairs
    without_dropout(pupil.model)
    task.refer(pupil.model, out / "training" / REFERENCE)
    fit(pupil.model, task, config, out, resume, begin)
    leave_the_rest_to_the_first()
    pupil.model.eval()
    with torch.inference_mode():
        preference = {**task.scores(pupil.model, "test"), "pairs": len(task.rows["test"])}
    pupil.save(out, merge)
    result = examined(pupil.model, pupil.tokenizer, splits, same_text, QUESTIONS)
    return {**result, "preference": preference}
