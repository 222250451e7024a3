"""What the server keeps of the runs that it has opened, and what it tells of them and of itself."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
import urllib.request
import weakref
from pathlib import Path

import pytest
import torch
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pellucid.assistant.server.engine import fitting_rows
from pellucid.assistant.server.models import OpenModels
from pellucid.config import ModelConfig
from pellucid.generation.compiled.model import CompiledModel
from pellucid.generation.graphed.model import GraphedModel
from pellucid.model.gpt import GPT
from pellucid.opened import Runs
from pellucid.runtime import ConfigError
from tests.assistant.server.conftest import Serve


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


def test_a_model_that_was_replaced_is_let_go_once_its_last_text_has_ended(base_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(base_folder, tmp_path / "run")
    models = OpenModels(Runs([tmp_path / "run"]))

    async def replaced() -> weakref.ref[object]:
        old = weakref.ref((await models.engine("run", ("language model",))).model)
        os.utime(tmp_path / "run" / "model.safetensors", ns=(1, 1))
        await models.engine("run", ("language model",))
        return old

    try:
        old, until = asyncio.run(replaced()), time.monotonic() + 20
        while old() is not None and time.monotonic() < until:
            time.sleep(0.01)
        assert old() is None
    finally:
        models.close()
        models.runs.close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_texts_are_made_on_the_device_that_was_asked_for_or_not_at_all(base_folder: Path) -> None:
    models = OpenModels(Runs([base_folder]), device="cuda")
    with pytest.raises(ConfigError, match="found 'cuda'"):
        asyncio.run(models.engine("base", ("language model",)))
    models.runs.close()


def test_texts_are_made_in_the_precision_and_by_the_threads_that_were_asked_for(base_folder: Path) -> None:
    models = OpenModels(Runs([base_folder]), dtype="int8", threads=2)
    try:
        model = asyncio.run(models.engine("base", ("language model",))).model
        assert isinstance(model, CompiledModel) and (model.dtype, model.team.threads) == ("int8", 2)
    finally:
        models.close()
        models.runs.close()


def test_as_many_texts_are_made_together_as_a_gigabyte_has_room_for() -> None:
    """2 × 2 layers × 2^18 places × 32 numbers of a head are 32 Mi numbers a text."""
    model = GPT(
        ModelConfig("llama", vocab_size=50, context_length=1 << 18, d_model=32, n_layers=2, n_heads=1, dropout=0.0)
    )
    ways = [model, CompiledModel.of(model), CompiledModel.of(model, "int8"), GraphedModel.of(model)]
    assert [fitting_rows(each) for each in (*ways, GraphedModel.of(model, "bfloat16"))] == [8, 8, 16, 8, 16]


def test_the_description_names_the_runs_of_each_kind(url: str) -> None:
    schemas = json.loads(read(f"{url}/openapi.json"))["components"]["schemas"]
    assert schemas["ClassifyRequest"]["properties"]["model"]["enum"] == ["classifier"]


def test_a_page_of_the_workbench_is_counted_by_its_route(serve: Serve, folders: list[Path]) -> None:
    def page(_: Request) -> PlainTextResponse:
        return PlainTextResponse("here")

    with serve(folders[:1], pages=lambda _: [Route("/data/{view}", page)]) as url:
        assert read(f"{url}/data/tokens") == "here"
        assert 'pellucid_requests_total{route="/data/{view}",status="200"}' in read(f"{url}/metrics")
