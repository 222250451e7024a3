"""What the command line does with assistants: make one from instructions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pellucid.config import FitConfig, as_dict
from pellucid.finetune.instruct import (
    InstructionTuning,
    answer_all,
    assistant_scores,
    prepare_model,
    same_text,
    save_assistant,
)
from pellucid.finetune.instructions import Example, nearest_answers, read_instructions, split_examples
from pellucid.finetune.lora import Lora, merge_adapters, save_adapter, train_part
from pellucid.finetune.recipes import ADAPTER_RATES, INSTRUCT_RATES, check_out, fit_config, hash_of
from pellucid.finetune.shown import show_examples
from pellucid.model.gpt import GPT
from pellucid.options import FinetuneInstruct
from pellucid.pretrain.fit import fit
from pellucid.pretrain.language import LanguageModelling
from pellucid.runtime import pick_device, write_json, write_run
from pellucid.text.tokenizer import Tokenizer


def finetune_assistant(
    base: Path,
    splits: dict[str, list[Example]],
    config: FitConfig,
    out: Path,
    resume: bool,
    is_right: Callable[[Example, str], bool] = same_text,
    questions: int = 1000,
    replay: LanguageModelling | None = None,
    train: str = "all",
    lora: Lora | None = None,
    packing: bool = False,
) -> dict[str, Any]:
    """Finetune the model in `base` on instructions, save it, and let it answer up to `questions` of the test split."""
    torch.manual_seed(config.seed)
    model, tokenizer = GPT.load(base).to(pick_device(config.device)), Tokenizer.load(base)
    known = model.config.vocab_size
    prepare_model(model, tokenizer)
    grew = model.config.vocab_size > known
    train_part(model, model, train, lora)
    if grew:  # role tokens that nobody trains could not be told apart
        model.token_embedding.requires_grad_(True)
    task = InstructionTuning(splits, tokenizer, config, model.config.context_length, replay, packing)
    show_examples(task.rows["train"], tokenizer)
    fit(model, task, config, out, resume)
    if train == "lora":
        save_adapter(out / "adapter", model, str(base), embedding=model.token_embedding.weight if grew else None)
        merge_adapters(model)
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


def finetune_instruct(options: FinetuneInstruct) -> tuple[dict[str, Any], str]:
    """`pellucid finetune instruct`."""
    check_out(options)
    splits = split_examples(read_instructions(options.data), seed=options.seed)
    lora = Lora(options.lora_rank, options.lora_alpha, base=options.base) if options.train == "lora" else None
    config = fit_config(options, options.epochs, len(splits["train"]), ADAPTER_RATES if lora else INSTRUCT_RATES)
    result = finetune_assistant(
        options.run,
        splits,
        config,
        options.out,
        options.resume,
        train=options.train,
        lora=lora,
        packing=options.packing,
    )
    write_run(options.out, "finetune instruct", as_dict(options) | as_dict(config), hash_of(options.data))
    write_json(options.out / "scores.json", result)
    scores = result["scores"]
    return {"out": str(options.out), **scores, "baseline_exact_match": result["baseline"]["exact_match"]}, (
        f"{options.out}: {scores['exact_match']:.1%} of {scores['questions']} held-out questions answered exactly "
        f"(nearest example: {result['baseline']['exact_match']:.1%}), {scores['stop_rate']:.1%} end by themselves\n"
        f"Next: pellucid chat {options.out}"
    )
