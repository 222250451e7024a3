"""How much is learnt in how little time, by `pellucid pretrain` as anybody runs it, its start and end included.

    python benchmarks/learn.py [DATA]                       Tiny Shakespeare to 1.886: a minute
    python benchmarks/learn.py [DATA] --only headline       Tiny Shakespeare to 1.4697: a quarter of an hour
    python benchmarks/learn.py [DATA] --only gutenberg      beside a plain loop on books: two times ten minutes

DATA is a folder with text/tinyshakespeare.txt and gutenberg/ (PELLUCID_DATA where it is not given). nanoGPT's held-out
loss is 1.886 by its recipe for a CPU, 1.4697 by that for an A100. A time is measured on a quiet machine or not at all.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from measure import machine, write

from pellucid.compute import exact_products
from pellucid.config import FitConfig, as_dict, model_config
from pellucid.model.gpt import GPT
from pellucid.pretrain.evaluate import bytes_per_token, limited, measure, parts_of
from pellucid.pretrain.language import LanguageModelling
from pellucid.pretrain.metrics import read_lines
from pellucid.runtime import PellucidError
from pellucid.text.character import CharacterTokenizer
from pellucid.text.documents import Document
from pellucid.text.shard_writer import write_shards
from pellucid.text.shards import Shards

Json = dict[str, Any]
PELLUCID = [str(Path(sys.executable).with_name("pellucid"))]
TEST_TOKENS = 200_000
SMALL = ('family = "llama"\nd_model = 96\nn_layers = 2\nn_heads = 3\ncontext_length = 128\n', 128)
MEDIUM = ('family = "llama"\nd_model = 256\nn_layers = 6\nn_heads = 4\ncontext_length = 256\n', 256)


def main() -> None:
    """Measure the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default=os.environ.get("PELLUCID_DATA"))
    parser.add_argument("--only", nargs="*", default=["shakespeare"], choices=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="of Tiny Shakespeare to 1.886")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each contender on the books")
    parser.add_argument("--model", default="laptop-large", help="that reads the books: a preset or a TOML file")
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("give a folder with text/ and gutenberg/, or set PELLUCID_DATA")
    for part in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = PARTS[part](Path(arguments.data), Path(folder), arguments)
            except (OSError, PellucidError) as error:
                raise SystemExit(str(error)) from None
            write(f"learn_{part}", {"machine": machine(), **found})


def run(*arguments: object) -> float:
    """Seconds that the process takes, from its start to its end."""
    began = time.perf_counter()
    done = subprocess.run([*PELLUCID, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - began


# ---------------------------------------------------------------- Tiny Shakespeare, characters


def play(data: Path, folder: Path) -> Path:
    """Shards of its characters; the last tenth is held out, as nanoGPT does."""
    text = (data / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    edge = int(0.9 * len(text))
    held_out = [Document(text[edge:], "held out")]
    splits = {"train": [Document(text[:edge], "train")], "val": held_out, "test": held_out}
    write_shards(splits, CharacterTokenizer.train([text]), folder / "shards")
    return folder / "shards"


def learnt(shards: Path, out: Path, size: tuple[str, int], *recipe: object) -> Json:
    """One run: its loss over the whole held-out tenth, and its seconds."""
    shape = out.with_suffix(".toml")
    shape.write_text(size[0])
    seconds = run("pretrain", "--data", shards, "--model", shape, "--context", size[1], "--out", out, *recipe)
    lines = read_lines(out / "metrics.jsonl")
    steps = [line for line in lines if line["split"] == "train"]
    return {
        "loss": measured(GPT.load(out), Shards.open(shards))["loss"], "seconds": round(seconds, 1),
        "tokens": steps[-1]["tokens"], "tokens_per_s_median": statistics.median(line["tokens_per_s"] for line in steps),
    }  # fmt: skip


def shakespeare(data: Path, folder: Path, arguments: argparse.Namespace) -> Json:
    """The loss of nanoGPT's recipe for a CPU, 1.886."""
    shards, recipe = play(data, folder), ("--steps", 155, "--batch-size", 16, "--evaluations", 1, "--lr", 0.0075)
    rounds = [learnt(shards, folder / f"run{i}", SMALL, *recipe, "--seed", i) for i in range(arguments.rounds)]
    found = {name: statistics.median(one[name] for one in rounds) for name in ("loss", "seconds")}
    return {"goal": {"loss": 1.886, "seconds": 10}, "median": found, "rounds": rounds, "recipe": [SMALL[0], *recipe]}


def headline(data: Path, folder: Path, arguments: argparse.Namespace) -> Json:
    """The loss of nanoGPT's recipe for an A100, 1.4697; also in its own way of measuring, windows side by side."""
    shards, recipe = play(data, folder), ("--minutes", 14.4, "--batch-size", 16, "--stride", "random")
    found = learnt(shards, folder / "run", MEDIUM, *recipe)
    found["loss_of_windows"] = loss_of_windows(GPT.load(folder / "run"), Shards.open(shards).tokens("test"))
    return {"goal": {"loss": 1.4697, "seconds": 900}, **found, "recipe": [MEDIUM[0], *recipe]}


@torch.inference_mode()
def loss_of_windows(model: GPT, tokens: Sequence[int]) -> float:
    """Mean loss of windows side by side, the first token of each with nothing before it, as nanoGPT measures."""
    size = model.config.context_length
    count = (len(tokens) - 1) // size
    ids = torch.tensor(tokens[: count * size + 1], dtype=torch.long)
    inputs, targets = ids[:-1].view(count, size), ids[1:].view(count, size)
    pairs = zip(inputs.split(16), targets.split(16), strict=True)
    total = sum(float(F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum")) for x, y in pairs)
    return total / (count * size)


# ---------------------------------------------------------------- books


def gutenberg(data: Path, folder: Path, arguments: argparse.Namespace) -> Json:
    """Bits per byte of the test split after so many minutes: ours, and the same model by a plain loop in float32."""
    shards = folder / "shards"
    run("tokenizer", "train", data / "gutenberg", "--vocab-size", 4096, "--out", folder / "tokenizer")
    run("encode", data / "gutenberg", "--tokenizer", folder / "tokenizer", "--out", shards)
    ours = ("--model", arguments.model, "--minutes", arguments.minutes, "--out", folder / "run")
    seconds = run("pretrain", "--data", shards, *ours)
    opened = Shards.open(shards)
    tokens = read_lines(folder / "run" / "metrics.jsonl")[-1]["tokens"]
    trained, (theirs, read) = GPT.load(folder / "run"), plain_loop(opened, 60 * arguments.minutes, arguments.model)
    bits = {"ours": measured(trained, opened)["bits_per_byte"], "plain": measured(theirs, opened)["bits_per_byte"]}
    return {
        "minutes": arguments.minutes, "seconds_of_ours": round(seconds, 1), "bits_per_byte": bits,
        "tokens": {"ours": tokens, "plain": read}, "model": as_dict(trained.config),
        "ratio": bits["ours"] / bits["plain"], "goal": {"ratio": 0.85},
    }  # fmt: skip


def plain_loop(
    shards: Shards, seconds: float, shape: str, batch: int = 8, rate: float = 1e-3, warmup: int = 100
) -> tuple[GPT, int]:
    """AdamW in float32 on the windows that ours has, a warm-up and then one rate, clipping: nothing more.

    The model, and how many tokens it has read.
    """
    exact_products()
    torch.manual_seed(0)
    model = GPT(model_config(shape, shards.vocab_size))
    context = model.config.context_length
    task = LanguageModelling(shards, FitConfig(steps=1, batch_size=batch), context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.1)
    began, step = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / warmup)
        (read,) = task.batches(step)
        loss = F.cross_entropy(model(read.inputs).flatten(0, 1), read.targets.flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
    print(f"plain loop: {step} steps, loss {float(loss.detach()):.3f}", file=sys.stderr, flush=True)
    return model.eval(), step * batch * context


def measured(model: GPT, shards: Shards) -> Json:
    """Loss and bits per byte of (some of) the test split, each token with at least half a context before it."""
    sizes = bytes_per_token(shards.tokenizer(), model.config.vocab_size)
    parts = limited(list(parts_of(shards.offsets("test"), model.config.context_length)), TEST_TOKENS)
    return measure(model, shards.tokens("test"), parts, sizes).summary()


PARTS = {"shakespeare": shakespeare, "headline": headline, "gutenberg": gutenberg}

if __name__ == "__main__":
    main()
