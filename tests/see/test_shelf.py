"""What the workbench takes from the opened runs: never another's, never what was, and only what is meant."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from starlette.datastructures import QueryParams

from pellucid.assistant.server.models import OpenModels
from pellucid.finetune.conversation import CHAT_TEMPLATE, ensure_role_tokens
from pellucid.model.gpt import GPT
from pellucid.opened import Runs
from pellucid.runtime import sha256, write_json
from pellucid.see.shelf import OPEN, Shelf
from pellucid.see.views.assistant import examples
from pellucid.see.views.embeddings import vocabulary
from pellucid.see.views.tokens import tokens
from pellucid.see.workbench import DATA, Question
from pellucid.text.bpe import BPETokenizer
from pellucid.text.tokenizer import Tokenizer

TEXT = "Anna gives the red lamp to Ben."


@pytest.fixture
def run(model: GPT, tokenizer: BPETokenizer, tmp_path: Path) -> Path:
    """A folder of the tiny GPT."""
    model.save(tmp_path / "run")
    tokenizer.save(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_many_texts_at_once_get_each_its_own_numbers(run: Path, model: GPT, family: Any) -> None:
    if family == "llama":
        GPT(replace(model.config, family=family, positions="rotary", n_kv_heads=1)).save(run)
    texts = [f"{TEXT} {number}" * (1 + number % 3) for number in range(24)]

    def look(shelf: Shelf, text: str) -> Any:
        question = Question(shelf, QueryParams({"text": text, "layer": "1", "head": "1", "token": "2"}))
        return [DATA[view](question) for view in ("attention", "lens", "block", "embeddings")]

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(partial(look, Shelf(Runs([run]))), texts))
    alone = Shelf(Runs([run]))
    assert together == [look(alone, text) for text in texts]


def test_a_model_that_is_replaced_is_read_again_and_what_was_made_of_it_goes(run: Path) -> None:
    shelf, kept = Shelf(Runs([run])), weakref.WeakSet[GPT]()
    file = run / "model.safetensors"
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(file), "part.safetensors")}
    file.rename(run / "part.safetensors")  # a folder of shards
    for _ in range(2 * OPEN):
        write_json(run / "model.safetensors.index.json", index)
        opened = shelf.open("run")
        assert opened is shelf.open("run")
        assert opened.model not in kept
        kept.add(opened.model)
        shelf.trace("run", "", TEXT)
        vocabulary(shelf, "run", "")
    del opened
    gc.collect()
    assert len(kept) == OPEN
    BPETokenizer.train([TEXT * 3], vocab_size=280).save(run)
    assert tokens(shelf, "run", TEXT)["ways"][2]["vocab_size"] == Tokenizer.load(run).vocab_size


@pytest.mark.parametrize("template", [None, CHAT_TEMPLATE, "{{ messages }} of somebody else"])
def test_server_and_workbench_agree_who_is_an_assistant(run: Path, template: str | None) -> None:
    tokenizer = Tokenizer.load(run)
    ensure_role_tokens(tokenizer)
    tokenizer.chat_template = template
    tokenizer.save(run)
    runs = Runs([run])
    expected = "assistant" if template == CHAT_TEMPLATE else "language model"
    assert Shelf(runs).kind("run") == OpenModels(runs).kind("run") == expected
    runs.close()


def test_training_examples_are_shown_of_the_very_file_that_was_trained_on(run: Path, tmp_path: Path) -> None:
    shelf, data = Shelf(Runs([run])), tmp_path / "private.json"
    assert examples(shelf, "run", 0) == {"count": 0}
    write_json(data, [{"instruction": "Say a secret.", "input": "", "output": "42"}])
    for claimed in ({}, {"private.json": "0" * 64}, None):  # whoever wrote this run.json has not had the file
        write_json(run / "run.json", {"config": {"data": str(data)}, "data": claimed})
        assert examples(shelf, "run", 0) == {"count": 0}
    write_json(run / "run.json", {"config": {"data": str(data)}, "data": {"private.json": sha256(data)}})
    assert examples(shelf, "run", 0)["instruction"] == "Say a secret."
    write_json(data, [{"instruction": "Something else.", "input": "", "output": "1"}])
    assert examples(shelf, "run", 0) == {"count": 0}
    write_json(run / "run.json", {"config": {"data": "\0.json"}})
    assert examples(shelf, "run", 0) == {"count": 0}
