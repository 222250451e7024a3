"""Our own server as the judge of `pellucid compare`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pellucid.config import FitConfig
from pellucid.finetune.instruct import InstructionTuning, prepare_model, save_assistant
from pellucid.finetune.instructions import Example
from pellucid.finetune.judge import Judge, Question, prompt_of
from pellucid.model.gpt import GPT
from pellucid.pretrain.fit import fit
from pellucid.runtime import PellucidError
from pellucid.text.tokenizer import Tokenizer


def test_our_own_server_judges(
    serve: Callable[..., contextlib.AbstractContextManager[str]], base_folder: Path, tmp_path: Path
) -> None:
    question = Question("Who?", "Anna.", "Anna.", "Ben.")
    make_judge(base_folder, tmp_path / "judge", {prompt_of(question, first): 2 - first for first in (True, False)})
    with serve([tmp_path / "judge"]) as address:
        (replies,) = Judge(f"{address}/v1", "judge").compare([question])
        with pytest.raises(PellucidError, match="HTTP status 404"):
            Judge(f"{address}/v1", "another").compare([question])
    assert [(reply.a_first, reply.verdict) for reply in replies] == [(True, "a"), (False, "a")]


def make_judge(base: Path, out: Path, verdicts: dict[str, int]) -> None:
    """An assistant that has learnt by heart what to say to these prompts."""
    tokenizer, config = Tokenizer.load(base), GPT.load(base).config
    torch.manual_seed(0)
    model = GPT(replace(config, context_length=1536))
    prepare_model(model, tokenizer)
    examples = [Example(prompt, "", f"Verdict: {number}") for prompt, number in verdicts.items()]
    fitting = FitConfig(steps=60, batch_size=2, lr=5e-3, dtype="float32", weight_decay=0.0, evaluate_share=1.0)
    splits = {"train": examples, "val": examples[:1], "test": []}
    fit(model, InstructionTuning(splits, tokenizer, fitting, 1536), fitting, out)
    save_assistant(model, tokenizer, out)
