"""Our own server as the judge of `pellucid compare`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pellucid.finetune.instruct import prepare_model, save_assistant
from pellucid.finetune.judge import Judge, Question
from pellucid.model.gpt import GPT
from pellucid.runtime import PellucidError
from pellucid.text.tokenizer import Tokenizer


def test_our_own_server_judges(
    serve: Callable[..., contextlib.AbstractContextManager[str]], base_folder: Path, tmp_path: Path
) -> None:
    tokenizer, config = Tokenizer.load(base_folder), GPT.load(base_folder).config
    torch.manual_seed(0)
    model = GPT(replace(config, context_length=1536))
    prepare_model(model, tokenizer)
    save_assistant(model, tokenizer, tmp_path / "judge")
    question = Question("Who?", "Anna.", "Anna.", "Ben.")
    with serve([tmp_path / "judge"]) as address:
        (replies,) = Judge(f"{address}/v1", "judge").compare([question])
        with pytest.raises(PellucidError, match="HTTP status 404"):
            Judge(f"{address}/v1", "another").compare([question])
    assert [reply.a_first for reply in replies] == [True, False]
    assert all(reply.text and reply.verdict in ("a", "b", "tie", "unclear") for reply in replies)
