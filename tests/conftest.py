"""What all tests share: the command line as a real process, a tiny model folder, and one tiny quickstart."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pellucid.cli import main
from pellucid.compute import exact_products
from pellucid.config import ModelConfig
from pellucid.model.gpt import GPT
from pellucid.text.bpe import BPETokenizer

exact_products()  # before any product of the tests
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started with & in a script: what is stopped here must hear it
    signal.signal(signal.SIGINT, signal.default_int_handler)
ROOT = Path(__file__).parents[1]


def forget_stale_code() -> None:
    """Numba takes what it compiled for fresh as long as a function's own file is; files beside it count here, too."""
    for folder in ROOT.glob("pellucid/*/compiled"):
        newest = max(file.stat().st_mtime for file in folder.glob("*.py"))
        for kept in folder.glob("__pycache__/*.nb[ic]"):
            if kept.stat().st_mtime < newest:
                kept.unlink()


forget_stale_code()  # before any of it is loaded
WORDS = "Anna gives the red lamp to Ben. Where is the fox? The blue fox has 12 lamps, and Ben has none: 3 + 4 = 7.\n"

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def environment() -> dict[str, str]:
    """The surroundings of a process that must find this checkout."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}


@pytest.fixture(scope="session")
def surroundings() -> dict[str, str]:
    """What a process of a test's own needs to find this checkout."""
    return environment()


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """`pellucid …` as a process that goes on while the test does."""

    def run(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pellucid", *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment(), stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    return run


@pytest.fixture(scope="session")
def cli(start: Callable[..., subprocess.Popen[str]]) -> Cli:
    """`pellucid …` as a process, to its end."""

    def run(*arguments: object, stdin: str = "", seconds: float = 120) -> subprocess.CompletedProcess[str]:
        process = start(*arguments)
        try:
            out, err = process.communicate(stdin, timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """`pellucid …` in this process: the same, but quicker where a test needs many."""

    def run(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["pellucid", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return subprocess.CompletedProcess(sys.argv, code if isinstance(code, int) else 1, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model that was never trained, with its tokenizer: two layers, 300 tokens, a context of 64."""
    folder = tmp_path_factory.mktemp("models") / "base"
    tokenizer = BPETokenizer.train([WORDS * 3], vocab_size=300)
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=tokenizer.vocab_size, context_length=64, d_model=32, n_layers=2, n_heads=2)
    model = GPT(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save(folder, bos_token_id=tokenizer.end_of_text, eos_token_id=tokenizer.end_of_text)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="session")
def quickstart(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a quickstart of a few seconds on the embedded corpus."""
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    done = cli("quickstart", "--minutes", 0.05, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder
