"""How many greedy texts stay as they are in fewer bits: `python benchmarks/decoding/alike.py RUN [--texts 100]`.

RUN is the folder of a quickstart (or of any run beside whose weights `shards/` lies). Each text goes on from the first
12 tokens of a document of the test split, by 60; the compiled pass in each precision beside that in float32.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pellucid.generation.compiled.model import CompiledModel
from pellucid.generation.compiled.packing import Dtype
from pellucid.generation.engine import stream_ids
from pellucid.generation.fast import FastReader
from pellucid.generation.sampling import GREEDY
from pellucid.model.gpt import GPT
from pellucid.text.shards import Shards

BEGINNING, MORE = 12, 60
OTHERS: tuple[Dtype, ...] = ("bfloat16", "int8", "int4")


def main() -> None:
    """Print, for each precision, the share of texts that are the same, and of tokens before the first other one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--texts", type=int, default=100)
    arguments = parser.parse_args()
    shards, model = Shards.open(arguments.run / "shards"), GPT.load(arguments.run)
    tokens, offsets = shards.tokens("test"), shards.offsets("test")[: arguments.texts]
    prompts = [tokens[start : start + BEGINNING].tolist() for start in offsets]
    plain = continued(model, "float32", prompts)
    for dtype in OTHERS:
        same = [alike(a, b) for a, b in zip(plain, continued(model, dtype, prompts), strict=True)]
        whole, share = sum(count == MORE for count in same) / len(same), sum(same) / (MORE * len(same))
        print(json.dumps({"dtype": dtype, "texts": len(same), "texts_alike": whole, "tokens_alike": round(share, 3)}))


def continued(model: GPT, dtype: Dtype, prompts: list[list[int]]) -> list[list[int]]:
    """The greedy continuation of each prompt."""
    reader = FastReader(CompiledModel.of(model, dtype))
    return [list(stream_ids(reader, prompt, MORE, GREEDY)) for prompt in prompts]


def alike(one: list[int], other: list[int]) -> int:
    """How many tokens both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))


if __name__ == "__main__":
    main()
