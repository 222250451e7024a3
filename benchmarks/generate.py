"""Decoding beside other libraries: `python benchmarks/generate.py [--device cuda] [--cases 16x1 900x1 16x8 16x32]`.

GPT-2 124M with random weights, saved once and read by all; greedy. Each figure is the median of whole processes that
took turns (decoding/contenders.py). llama.cpp reads the file that `pellucid export` writes. Peers of other pins have
a Python of their own: PELLUCID_LLMS_FROM_SCRATCH_PYTHON, PELLUCID_LITGPT_PYTHON and PELLUCID_LLAMA_CPP_PYTHON name it.
On a GPU transformers alone stands beside us, and memory is the GPU's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from measure import machine, write

Json = dict[str, Any]
DECODERS = Path(__file__).parent / "decoding" / "contenders.py"


class Contender(NamedTuple):
    """A library, and the precision that it is asked for."""

    library: str
    dtype: str

    @property
    def python(self) -> str:
        """The interpreter that has it; "" where there is none."""
        if self.library in ELSEWHERE:
            return os.environ.get(ELSEWHERE[self.library], "")
        return sys.executable if find_spec(self.library) else ""


QUESTIONS = [
    "Sort these words: pear, apple, fig, kiwi, lemon, plum", "Hello, who are you?", "Spell the word basket.",
    "What is 17 + 25?", "Continue the pattern: lamp sun lamp sun lamp",
]  # fmt: skip
ELSEWHERE = {
    "llms_from_scratch": "PELLUCID_LLMS_FROM_SCRATCH_PYTHON", "litgpt": "PELLUCID_LITGPT_PYTHON",
    "llama_cpp": "PELLUCID_LLAMA_CPP_PYTHON",
}  # fmt: skip
OWN_WEIGHTS = set(ELSEWHERE) - {"llama_cpp"}  # those that cannot read the model, and say something else
CONTENDERS = [
    *(Contender("pellucid", dtype) for dtype in ("float32", "bfloat16", "int8", "int4")),
    *(Contender("transformers", dtype) for dtype in ("float32", "bfloat16")),
    *(Contender("ctranslate2", dtype) for dtype in ("float32", "int8")),
    *(Contender("llama_cpp", dtype) for dtype in ("float32", "bfloat16", "int8", "int4")),
    *(Contender("llms_from_scratch", dtype) for dtype in ("float32", "bfloat16")),
    *(Contender("litgpt", dtype) for dtype in ("float32", "bfloat16")),
]


ON_GPU = [Contender(library, dtype) for library in ("pellucid", "transformers") for dtype in ("float32", "bfloat16")]


def main() -> None:
    """Measure every contender that is at hand, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cases", nargs="*", default=["16x1", "900x1", "16x8", "16x32"], help="prompt x texts")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="library or library:dtype")
    parser.add_argument("--chat", help="an assistant's folder, whose replies are timed, too")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here, so there is nothing to measure")
    known = [one for one in CONTENDERS if one.python and (asked.device == "cpu" or one in ON_GPU)]
    wanted = [one for one in known if not asked.only or {one.library, ":".join(one)} & set(asked.only)]
    results: Json = {
        "machine": machine() | {"memory_read_GB_per_s": round(read_rate(asked.threads), 1)},
        "threads": asked.threads,
        "device": torch.cuda.get_device_name() if asked.device == "cuda" else "cpu",
        "tokens": asked.tokens,
        "not_at_hand": sorted({one.library for one in CONTENDERS if not one.python}),
    }
    with tempfile.TemporaryDirectory() as folder:
        save_gpt2(Path(folder))
        for dtype in ("int8", "int4"):
            pellucid("quantize", folder, "--to", dtype, "--out", f"{folder}/{dtype}")
        if any(one.library == "llama_cpp" for one in wanted):
            for dtype in ("float32", "bfloat16"):
                pellucid("export", folder, "--to", "gguf", "--dtype", dtype, "--out", f"{folder}/{dtype}.gguf")
        for prompt, batch in (map(int, case.split("x")) for case in asked.cases):
            case = {"prompt": prompt, "batch": batch, "tokens": asked.tokens, "threads": asked.threads}
            case["device"] = asked.device
            print(case, file=sys.stderr, flush=True)
            results[f"prompt {prompt}, batch {batch}"] = compare(wanted, {**case, "model": folder}, asked.rounds)
        results["start"] = start_to_first_token(Path(folder), asked)
    if asked.chat:
        results["chat"] = chat_speed(asked.chat)
    write("generate" if asked.device == "cpu" else "generate_cuda", results)


def pellucid(*arguments: str) -> None:
    """The command line, as a process."""
    subprocess.run([sys.executable, "-m", "pellucid", *arguments], check=True, capture_output=True)


def save_gpt2(folder: Path) -> None:
    """GPT-2 124M with random weights, as a run folder."""
    from pellucid.config import PRESETS
    from pellucid.model.gpt import GPT
    from pellucid.text.tokenizer import Tokenizer

    torch.manual_seed(0)
    GPT(PRESETS["gpt2"]).save(folder)
    Tokenizer.load("gpt2").save(folder)


def read_rate(threads: int, size: int = 1 << 28) -> float:
    """GB/s at which so many threads together read memory."""
    parts = [np.ones(size // 8 // threads, np.int64) for _ in range(threads)]
    best = 1e9
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(7):
            began = time.perf_counter()
            list(pool.map(np.bitwise_or.reduce, parts))
            best = min(best, time.perf_counter() - began)
    return sum(part.nbytes for part in parts) / 1e9 / best


def compare(contenders: list[Contender], case: Json, rounds: int) -> Json:
    """Medians of each contender, in turn; all of float32 must say the same."""
    found: dict[Contender, list[Json]] = {one: [] for one in contenders}
    for _ in range(rounds):
        for one in contenders:
            command = [one.python, str(DECODERS), one.library, json.dumps({**case, "dtype": one.dtype})]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{':'.join(one)}: {done.stderr[-2000:]}")
            found[one].append(json.loads(done.stdout.splitlines()[-1]))
    said = {
        tuple(runs[0]["ids"]) for one, runs in found.items() if one.dtype == "float32" and one[0] not in OWN_WEIGHTS
    }
    assert len(said) <= 1, f"float32 texts differ: {said}"
    return {
        ":".join(one): {
            name: round(statistics.median(run[name] for run in runs), 4)
            for name in ("first_s", "tokens_per_s", "peak_MB")
        }
        for one, runs in found.items()
    }


def start_to_first_token(folder: Path, options: argparse.Namespace) -> Json:
    """Seconds of `pellucid generate`, from its start until it says what it made of one token, and until its end."""
    found = {}
    folders = [("float32", folder)] + [("int8", folder / "int8")] * (options.device == "cpu")  # it has int8 alone
    for name, where in folders:
        asked = ["generate", str(where), "--prompt", "Once", "--max-tokens", "1", "--json"]
        asked += ["--threads", str(options.threads), "--device", options.device]
        seconds = []
        for _ in range(options.rounds + 1):
            began = time.perf_counter()
            with subprocess.Popen([sys.executable, "-m", "pellucid", *asked], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None and process.stdout.readline()
                first = time.perf_counter() - began
            seconds.append((first, time.perf_counter() - began))
        medians = [round(statistics.median(column), 2) for column in zip(*seconds[1:], strict=True)]
        found[f"pellucid:{name}"] = dict(zip(("first_token_s", "end_s"), medians, strict=True))
    return found


def chat_speed(run: str) -> Json:
    """Tokens a second of an assistant, reading the questions included, and milliseconds until its first text."""
    from pellucid.assistant.chat import ChatSession
    from pellucid.generation.compiled.model import CompiledModel
    from pellucid.generation.sampling import GREEDY
    from pellucid.text.tokenizer import Tokenizer

    session = ChatSession(CompiledModel.load(run), Tokenizer.load(run), GREEDY)
    tokens, seconds, firsts = 0, 0.0, []
    for question in QUESTIONS * 5:
        session.history = []
        began = time.perf_counter()
        pieces = session.reply(question)
        next(pieces)
        firsts.append(1000 * (time.perf_counter() - began))
        for _ in pieces:
            pass
        seconds += time.perf_counter() - began
        tokens += len(session.last[1]) + 1  # and end-of-text
    return {"tokens_per_s": round(tokens / seconds), "first_ms": round(statistics.median(firsts), 2)}


if __name__ == "__main__":
    main()
