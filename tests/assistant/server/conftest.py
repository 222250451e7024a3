"""Three tiny runs, and a real server for them on loopback."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from openai import OpenAI

from pellucid.assistant.server.app import build
from pellucid.assistant.server.commands import listen, settings
from pellucid.assistant.server.models import OpenModels
from pellucid.finetune.classify import Classifier
from pellucid.finetune.instruct import prepare_model, save_assistant
from pellucid.model.gpt import GPT
from pellucid.opened import Runs
from pellucid.text.tokenizer import Tokenizer

Serve = Callable[..., contextlib.AbstractContextManager[str]]


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Models this small are quicker on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def folders(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A language model, an assistant and a classifier."""
    home = tmp_path_factory.mktemp("served")
    model, tokenizer = GPT.load(base_folder), Tokenizer.load(base_folder)
    classifier = Classifier(model, ["ham", "spam"])
    torch.nn.init.normal_(classifier.head.weight)
    classifier.save(home / "classifier", tokenizer)
    prepare_model(model, tokenizer)
    save_assistant(model, tokenizer, home / "assistant")
    return [base_folder, home / "assistant", home / "classifier"]


@pytest.fixture(scope="package")
def serve() -> Serve:
    """Serve folders in a thread of this process; the address."""

    @contextlib.contextmanager
    def serving(folders: list[Path], rows: int = 8, waiting: int = 256, **guard: Any) -> Iterator[str]:
        models = OpenModels(Runs(folders), rows, waiting)
        server = uvicorn.Server(settings(build(models, **guard)))
        listener = listen("127.0.0.1", 0)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            until = time.monotonic() + 60
            while not server.started and time.monotonic() < until:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)  # a pass that is being compiled is waited for
            models.runs.close()
            assert not thread.is_alive()

    return serving


@pytest.fixture(scope="package")
def url(serve: Serve, folders: list[Path]) -> Iterator[str]:
    """Where the three runs are served."""
    with serve(folders) as address:
        yield address


@pytest.fixture(scope="package")
def client(url: str) -> Iterator[OpenAI]:
    """OpenAI's own client, which here asks once."""
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made
