"""`pellucid quantize`: a run folder in 8 or 4 bits a number, beside what that cost in loss and saved in size.

The loss is that of the compiled pass, which rounds what it multiplies with, too: it is what `pellucid generate` runs.
Its rise has an interval of its own: both models are judged on the same parts, so what makes a text hard falls out.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pellucid.config import as_dict
from pellucid.generation.compiled.model import TOGETHER, CompiledModel, kept_in
from pellucid.generation.compiled.packing import BITS
from pellucid.model.formats.folder import check_fits, read_as_kept
from pellucid.model.formats.quantised import QUANTISED, Quantised, in_few_bits, write_quantised
from pellucid.model.gpt import folder_of
from pellucid.model.importing import TOKENIZER_FILES
from pellucid.options import Quantize
from pellucid.pretrain.commands import tokens_to_judge
from pellucid.pretrain.evaluate import Part, interval, limited, parts_of
from pellucid.runtime import LITTER, ConfigError, DataError, atomic_folder, problem, progress_bar, sha256, write_run
from pellucid.text.tokenizer import Tokenizer

TOKENS = 50_000  # that the loss is measured on, at most
WORK = 2e12  # products, after which it is enough: fewer tokens for a large model
CARRIED = ("config.json", "generation_config.json", *TOKENIZER_FILES)


def quantize(options: Quantize) -> tuple[dict[str, Any], str]:
    """Write the folder, then measure both on `--data`. ConfigError or DataError before anything is written."""
    check_out(options.out)
    source = folder_of(options.run)
    if (kept := kept_in(source)) in BITS:
        advice = "Give the folder that it was made of: rounding twice loses more."
        raise DataError(problem(options.run, f"a folder in {kept}", "one that is not quantised yet", advice))
    tokenizer = Tokenizer.load(source)
    bits = BITS[options.to]
    with progress_bar() as bar:
        task = bar.add_task("rounding", total=None, note="")

        def each(name: str, weight: Tensor) -> Tensor | Quantised:
            bar.update(task, advance=1, note=name)
            return in_few_bits(name, weight, bits)

        config, weights, _ = read_as_kept(source, each)
    if "head" in weights:
        advice = "Quantise a language model or an assistant."
        raise DataError(problem(options.run, "a classifier", "a model that writes text", advice))
    check_fits(config, tokenizer, options.run)
    parts: list[Part] = []
    if options.data is not None:
        tokens, offsets = tokens_to_judge(options.data, tokenizer, config.vocab_size)
        work = config.n_layers * config.d_model * (4 * config.d_model + 3 * config.d_ff)
        work += config.vocab_size * config.d_model
        parts = limited(list(parts_of(offsets, config.context_length)), max(1, min(TOKENS, int(WORK / work))))
    with atomic_folder(options.out) as folder:
        write_quantised(folder, weights)
        weights.clear()
        carry(options, source, folder)
        result: dict[str, Any] = {
            "out": str(options.out),
            "dtype": options.to,
            "bytes_before": sum(file.stat().st_size for file in source.glob("*.safetensors")),
            "bytes": (folder / QUANTISED).stat().st_size,
        }
        if parts:
            before, after = (losses(CompiledModel.load(where), tokens, parts) for where in (source, folder))
            result |= compared(before, after, sum(part.length - part.fresh for part in parts))
    return result, summary(result)


def check_out(out: Path) -> None:
    """A folder that holds something else than an earlier quantised model is not written over."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / QUANTISED).is_file():
        raise ConfigError(problem(out, "files of something else", "a new folder", "Give another --out."))
    if strangers := sorted({path.name for path in out.iterdir()} - {QUANTISED, "run.json", *CARRIED} - LITTER):
        found = f"{strangers[0]}, which no quantising wrote"
        raise ConfigError(problem(out, found, "a quantised model alone", "Move it, or give another --out."))


def carry(options: Quantize, source: Path, folder: Path) -> None:
    """What goes along unchanged, and run.json."""
    files = {file.name: file for file in sorted(source.iterdir()) if file.is_file()}
    for name in CARRIED:
        if name in files:
            shutil.copyfile(files[name], folder / name)
    hashes = {name: sha256(file) for name, file in files.items() if name in CARRIED or name.endswith(".safetensors")}
    write_run(folder, "quantize", as_dict(options), hashes)


def losses(model: CompiledModel, tokens: NDArray[Any], parts: Sequence[Part]) -> NDArray[np.float64]:
    """The nats of each part: of its fresh tokens together."""
    nats = np.zeros(len(parts))
    with progress_bar() as bar:
        task = bar.add_task(f"loss in {model.dtype}", total=sum(part.length for part in parts), note="")
        for row, part in enumerate(parts):
            window = tokens[part.start : part.start + part.length + 1].astype(np.int64)
            slots = model.slots(1)
            for start in range(0, part.length, TOGETHER):
                places = range(start, min(start + TOGETHER, part.length))
                wanted = [place - start for place in places if place >= part.fresh]
                ids, targets = (window[places.start + i : places.stop + i] for i in (0, 1))
                logits = model.logits(slots, ids.tolist(), [0] * len(places), places, wanted)
                right = torch.from_numpy(targets[wanted])
                nats[row] += float(F.cross_entropy(torch.from_numpy(logits), right, reduction="sum"))
                bar.update(task, advance=len(places))
    return nats


def compared(before: NDArray[np.float64], after: NDArray[np.float64], tokens: int) -> dict[str, Any]:
    """Both losses in nats a token and the rise, with a 95 % interval from drawing the parts anew (as `Measured`)."""
    count = len(before)
    draws = np.random.default_rng(0).integers(0, count, (1000 if count > 1 else 0, count))
    rises = after[draws].sum(axis=1) / before[draws].sum(axis=1) - 1
    one, other = float(before.sum()) / tokens, float(after.sum()) / tokens
    means = {"loss_before": one, "loss": other, "loss_rise": other / one - 1}
    return {**means, "loss_rise_interval": interval(rises), "tokens": tokens}


def summary(result: dict[str, Any]) -> str:
    """What it saved and what it cost."""
    times = result["bytes_before"] / result["bytes"]
    lines = [f"{result['out']}: {result['dtype']}, {result['bytes']:,} bytes, {times:.1f} times smaller."]
    if "loss" in result:
        spread = "; 95 %: {:+.2%} to {:+.2%}".format(*edges) if (edges := result["loss_rise_interval"]) else ""
        lines.append(
            f"Loss over {result['tokens']:,} tokens: {result['loss']:.4f}, before {result['loss_before']:.4f} "
            f"({result['loss_rise']:+.2%}{spread})."
        )
    else:
        lines.append("What it costs in loss, --data FILE says.")
    lines.append(f"Next: pellucid generate {result['out']} --prompt 'Once'. Only Pellucid opens it: keep the original.")
    return "\n".join(lines)
