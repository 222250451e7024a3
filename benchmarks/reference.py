"""Reference curves of presets on the embedded corpus: `python benchmarks/reference.py [--seeds N] [--only PRESET…]`.

Trains each preset by one recipe with several seeds, half of them in bfloat16, and writes what `pellucid report` draws
under a run of the same recipe: by tokens, where the held-out loss of one more seed lies in 95 of 100 cases.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Literal

from scipy.stats import t

from pellucid.config import FitConfig, model_config
from pellucid.pretrain.commands import train_language_model
from pellucid.pretrain.metrics import read_lines
from pellucid.pretrain.recipe import rate_of
from pellucid.runtime import write_json
from pellucid.see.references import recipe_of
from pellucid.text import tinyworld
from pellucid.text.bpe import BPETokenizer
from pellucid.text.documents import read_documents
from pellucid.text.shard_writer import write_shards
from pellucid.text.shards import Shards
from pellucid.text.splits import split_documents
from pellucid.text.tinyworld.files import write_documents

FILE = Path(__file__).parents[1] / "pellucid" / "see" / "references.json"
PRESETS = ("laptop", "laptop-large", "laptop-llama", "laptop-large-llama")
DOCUMENTS, VOCABULARY = 39_000, 4096  # the quickstart's own
DTYPES: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")  # what machines of one or the other choose
SURE = 0.95
RECIPE = {"tokens": 500_000, "batch_size": 8, "context": 128}


def main() -> None:
    """Train, and keep the curves of presets that are not asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--only", nargs="*", default=list(PRESETS))
    arguments = parser.parse_args()
    references = json.loads(FILE.read_text()) if FILE.is_file() else {}
    with tempfile.TemporaryDirectory() as name:
        shards = make_shards(Path(name))
        for preset in arguments.only:
            runs = [train(preset, shards, seed, Path(name) / f"{preset}-{seed}") for seed in range(arguments.seeds)]
            references[preset] = {"recipe": recipe_of(runs[0]), **band(preset, [curve(run) for run in runs])}
            write_json(FILE, references)
            print(preset, references[preset], file=sys.stderr, flush=True)


def make_shards(folder: Path) -> Shards:
    """The quickstart's text, encoded as it encodes it."""
    write_documents(folder / "documents.jsonl", islice(tinyworld.documents(0), DOCUMENTS), 0)
    splits = split_documents(read_documents([folder / "documents.jsonl"]))
    tokenizer = BPETokenizer.train([document.text for document in splits["train"]], vocab_size=VOCABULARY)
    return write_shards(splits, tokenizer, folder / "shards")


def train(preset: str, shards: Shards, seed: int, out: Path) -> Path:
    """The folder of one run."""
    shape = model_config(preset, shards.vocab_size)
    steps = -(-RECIPE["tokens"] // (RECIPE["batch_size"] * RECIPE["context"]))
    config = FitConfig(
        steps=steps,
        batch_size=RECIPE["batch_size"],
        lr=rate_of(shape.d_model),
        seed=seed,
        spikes=True,
        dtype=DTYPES[seed % 2],
    )
    train_language_model(shards, shape, config, RECIPE["context"], out, resume=False)
    return out


def curve(run: Path) -> list[tuple[int, float]]:
    """(tokens, held-out loss) of a run."""
    lines = read_lines(run / "metrics.jsonl")
    return [(line["tokens"], line["loss"]) for line in lines if line["split"] == "val"]


def band(preset: str, curves: list[list[tuple[int, float]]]) -> dict[str, object]:
    """What is drawn: at each evaluation the prediction interval of a further seed (Student's t, few seeds are wide)."""
    columns = list(zip(*curves, strict=True))
    losses = [[loss for _, loss in column] for column in columns]
    wide = float(t.ppf((1 + SURE) / 2, len(curves) - 1)) * math.sqrt(1 + 1 / len(curves))
    middle = [(statistics.mean(column), wide * statistics.stdev(column)) for column in losses]
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in RECIPE.items())
    return {
        "command": f"pellucid pretrain --data runs/quickstart/shards --model {preset} {options}",
        "seeds": len(curves),
        "tokens": [column[0][0] for column in columns],
        "low": [round(mean - half, 4) for mean, half in middle],
        "high": [round(mean + half, 4) for mean, half in middle],
    }


if __name__ == "__main__":
    main()
