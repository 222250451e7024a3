"""`pellucid export`: a run folder becomes one file for another tool, which is read again before it takes its place."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pellucid.config import ModelConfig
from pellucid.model.formats.folder import HEAD, find_tensors, read_model_folder, read_settings
from pellucid.model.gpt import GPT
from pellucid.model.outline import Outline
from pellucid.runtime import ConfigError, DataError, PellucidError, atomic_file, problem, progress_bar
from pellucid.text.bpe import BPETokenizer
from pellucid.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pellucid.assistant.export.llama_cpp_check import Agreement
    from pellucid.options import Export

LIBRARIES = {"gguf": ("gguf",), "onnx": ("onnx", "onnxscript", "onnxruntime")}
QUIET_SECONDS = 2.0  # before progress is shown


def export(options: Export) -> tuple[dict[str, Any], str]:
    """Do what `pellucid export` says. PellucidError names what is missing, damaged or cannot be said in the format."""
    missing = [name for name in LIBRARIES[options.to] if importlib.util.find_spec(name) is None]
    if missing:
        advice = "Install it: pip install 'pellucid[export]'"
        raise PellucidError(problem(f"--to {options.to}", f"no library {', '.join(missing)}", "it installed", advice))
    out = options.out
    if out.is_dir() or (out.exists() and out.suffix not in (".gguf", ".onnx")):
        found = "a folder" if out.is_dir() else "a file of something else"
        raise ConfigError(problem(out, found, "a new file, or an earlier export", "Give another --out."))
    return {"gguf": to_gguf, "onnx": to_onnx}[options.to](options)


def to_gguf(options: Export) -> tuple[dict[str, Any], str]:
    """Write, read again, compare; with llama.cpp where it is at hand."""
    from pellucid.assistant.export.gguf_check import check_gguf
    from pellucid.assistant.export.gguf_file import DTYPES, check_tokenizer, metadata, write_gguf

    run, dtype = options.run, DTYPES[options.dtype]
    config, weights, settings = read_model_folder(run)
    if "head" in weights:
        advice = "Export it with --to onnx, or export the model that it was finetuned from."
        raise DataError(problem(run, "a classifier", "a language model: GGUF is for those", advice))
    tokenizer = check_tokenizer(Tokenizer.load(run), config, run)
    said = metadata(config, tokenizer, settings, run.resolve().name or "model", dtype)
    size = sum(tensor.numel() for tensor in weights.values()) * dtype.itemsize
    with atomic_file(options.out) as temporary, shown(f"writing {options.out.name}", 2 * size) as advance:
        write_gguf(temporary, config, weights, said, dtype, advance)
        tensors, moved = check_gguf(temporary, config, weights, tokenizer, said, dtype, advance)
        agreement = with_llama_cpp(temporary, config, weights, tokenizer, dtype)
    result: dict[str, Any] = {
        "file": str(options.out),
        "format": "gguf",
        "dtype": options.dtype,
        "bytes": options.out.stat().st_size,
        "tensors_compared": tensors,
        "tokens_compared": tokenizer.vocab_size,
        "largest_rounding": moved,
        "llama_cpp": None if agreement is None else agreement._asdict(),
    }
    return result, gguf_summary(result, config)


def with_llama_cpp(
    path: Path, config: ModelConfig, weights: dict[str, Tensor], tokenizer: BPETokenizer, dtype: torch.dtype
) -> Agreement | None:
    """Compare with llama.cpp, if there is one. The weights are rounded in place: nobody needs them afterwards."""
    from pellucid.assistant.export.gguf_file import kept_in
    from pellucid.assistant.export.gguf_names import table
    from pellucid.assistant.export.llama_cpp_check import check_with_llama_cpp, llama_cpp_python

    python = llama_cpp_python()
    if python is None:
        return None
    for row in table(config):
        for name in row.ours:
            weights[name].copy_(weights[name].to(kept_in(row.theirs, weights[name], dtype)))
    with Outline():
        model = GPT(config)
    model.load_state_dict(weights, assign=True)
    return check_with_llama_cpp(python, path, model.eval(), tokenizer, dtype)


def gguf_summary(result: dict[str, Any], config: ModelConfig) -> str:
    """What to print: what was compared with what, and what was not."""
    lines = [
        f"{result['file']}: {result['bytes']:,} bytes, GGUF in {result['dtype']}.",
        f"Read again by gguf: {result['tensors_compared']} tensors the same bit by bit, "
        f"a tokenizer that gives the same ids ({result['tokens_compared']:,} tokens).",
    ]
    if result["dtype"] != "float32":
        lines.append(f"{result['dtype']} moved a weight by {result['largest_rounding']:.2g} at most.")
    if (agreement := result["llama_cpp"]) is None:
        lines.append("Not compared with llama.cpp: there is none here (pip install llama-cpp-python).")
    else:
        lines.append(
            f"llama.cpp gives the same ids for {agreement['texts']} texts, and for {agreement['tokens']} tokens "
            f"logits that differ by {agreement['largest_difference']:.2g} at most (the largest is "
            f"{agreement['largest_logit']:.3g})."
        )
    if 0 < config.window < config.context_length:
        lines.append(
            f"llama.cpp does not slide this model's window of {config.window:,} tokens, so the file says that its "
            f"context is as long: within it both are the same."
        )
    return "\n".join(lines)


def to_onnx(options: Export) -> tuple[dict[str, Any], str]:
    """Write, open with ONNX Runtime, compare logits."""
    from pellucid.assistant.export.onnx_file import check_onnx, load, write_onnx

    if options.dtype != "float32":
        advice = "Leave it out, or take --to gguf."
        raise ConfigError(problem("--dtype", options.dtype, "float32, with --to onnx", advice))
    settings = read_settings(options.run)
    stored, _ = find_tensors(options.run)
    model, said = load(options.run, settings, HEAD in stored)
    name = options.out.name
    with atomic_file(options.out) as temporary, progress_bar() as bar:
        task = bar.add_task(f"writing {name}", total=None, note="")  # which takes seconds even for small models
        write_onnx(temporary, model, said)
        bar.update(task, description=f"comparing {name}")
        agreement = check_onnx(temporary, model, said)
    size = options.out.stat().st_size
    result = {
        "file": str(options.out),
        "format": "onnx",
        "dtype": options.dtype,
        "bytes": size,
        "onnxruntime": agreement._asdict(),
    }
    takes = "ids (B, T) and lengths (B) → logits (B, C)" if HEAD in stored else "ids (B, T) → logits (B, T, V)"
    text = (
        f"{options.out}: {size:,} bytes, ONNX, {takes}.\n"
        f"Opened with ONNX Runtime: over {agreement.batches} batches logits that differ by "
        f"{agreement.largest_difference:.2g} at most (the largest is {agreement.largest_logit:.3g}).\n"
        f"It holds no tokenizer: take tokenizer.json of {options.run} along."
    )
    return result, text


@contextmanager
def shown(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal, once it has taken a while; yields what to tell each step's size to."""
    began = time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task(what, total=total, note="", visible=False)
        yield lambda size: bar.update(task, advance=size, visible=time.monotonic() - began > QUIET_SECONDS)
