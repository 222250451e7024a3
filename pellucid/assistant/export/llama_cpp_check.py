"""Asks llama.cpp, where it is at hand, for ids and logits of a GGUF file, and compares them with ours.

llama.cpp counts otherwise than we: its GELU is a table in float16, and with weights in half precision it rounds what it
multiplies them with, too. So its logits are near ours, not the same; LIMITS says how near they must be.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pellucid.assistant.export import llama_cpp_process
from pellucid.model.gpt import GPT
from pellucid.runtime import ConfigError, DataError, problem
from pellucid.text.bpe import BPETokenizer

VARIABLE = "PELLUCID_LLAMA_CPP_PYTHON"
LIMITS = {torch.float32: 0.01, torch.float16: 0.02, torch.bfloat16: 0.1}  # of the largest logit
PROMPT = 16  # tokens
PATIENCE = 600  # seconds
TEXTS = (
    "Once upon a time, there was a fox.",
    "It's what they'd said: we'll see, I'm sure you've 1234567 lamps!",
    "  two spaces,\ttabs\n\nand   lines \n \n end  ",
    "naïve café — “quoted” … 東京 42 🙂",
    "x = [1, 2]; if (a<b) { return '<|endoftext|>'; }",
    "A",
)


class Agreement(NamedTuple):
    """What llama.cpp was compared by, and by how much its logits differ at most."""

    texts: int
    tokens: int
    largest_logit: float
    largest_difference: float


def llama_cpp_python() -> str | None:
    """A Python that has llama-cpp-python: the one that the variable names, or this one; None where there is none."""
    named = os.environ.get(VARIABLE)
    return named or (sys.executable if importlib.util.find_spec("llama_cpp") else None)


def check_with_llama_cpp(python: str, path: Path, model: GPT, tokenizer: BPETokenizer, dtype: torch.dtype) -> Agreement:
    """Compare ids and logits; `model` has the weights as the file rounds them. DataError names what differs."""
    ours = [tokenizer.encode(text) for text in TEXTS]
    room = min(PROMPT, model.config.context_length, model.config.window or PROMPT)
    prompt = [token for ids in ours for token in ids][:room]
    ids, logits = ask(python, path, prompt)
    for text, expected, found in zip(TEXTS, ours, ids, strict=True):
        if found != expected:
            what = f"other ids by llama.cpp for {text!r} ({found})"
            raise DataError(problem(path, what, str(expected), "Export the model with --to onnx, and tell us."))
    with torch.inference_mode():
        wanted = model(torch.tensor([prompt]))[0].numpy()
    found_logits = logits.reshape(wanted.shape)
    largest, difference = float(np.abs(wanted).max()), float(np.abs(found_logits - wanted).max())
    if not difference <= LIMITS[dtype] * largest:  # NaN is no agreement either
        what = f"logits by llama.cpp that differ by up to {difference:g}"
        limit = f"at most {LIMITS[dtype] * largest:g}, as the largest logit is {largest:g}"
        raise DataError(problem(path, what, limit, "The file was not kept. Try --dtype float32."))
    return Agreement(len(TEXTS), len(prompt), largest, difference)


def ask(python: str, path: Path, prompt: list[int]) -> tuple[list[list[int]], np.ndarray]:
    """Ids of TEXTS and logits of the prompt by llama.cpp. DataError where it cannot read the file."""
    command = [python, llama_cpp_process.__file__, str(path)]
    question = json.dumps({"texts": TEXTS, "ids": prompt})
    try:
        done = subprocess.run(command, input=question, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        advice = f"Let {VARIABLE} name a Python with llama-cpp-python, or leave it unset."
        raise ConfigError(problem(python, f"no answer ({error})", "llama.cpp's ids and logits", advice)) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise DataError(problem(path, f"a file that llama.cpp cannot read ({last})", "one that it can", "Tell us."))
    answer = json.loads(done.stdout)
    return answer["ids"], np.frombuffer(base64.b64decode(answer["logits"]), dtype="<f4")
