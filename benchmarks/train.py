"""Training GPT-2 124M beside other libraries: tokens/s, peak memory, and the share of the machine's product rate.

    python benchmarks/train.py [--cases 4x256 16x256 8x512] [--rounds 3] [--only pellucid transformers]

Each contender is a process of its own (training/contenders.py) that takes its steps in turn with the others.
PELLUCID_LITGPT_PYTHON and PELLUCID_LLMS_FROM_SCRATCH_PYTHON name Pythons that have litgpt and llms-from-scratch, whose
pins differ from ours; whoever is not at hand is named in the result.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from measure import machine, rates, timed, write

from pellucid.config import ModelConfig
from pellucid.pretrain.recipe import flops_per_token

Json = dict[str, Any]
CONTENDERS = Path(__file__).parent / "training" / "contenders.py"
ELSEWHERE = {"litgpt": "PELLUCID_LITGPT_PYTHON", "llms-from-scratch": "PELLUCID_LLMS_FROM_SCRATCH_PYTHON"}
NAMES = ("pellucid", "pellucid, Muon", "transformers", *ELSEWHERE)
ROWS = 1024  # of the products that are timed: a batch of 4 × 256


def main() -> None:
    """Measure each case with everybody who is at hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=["4x256", "16x256", "8x512"], help="batch x context")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=NAMES, choices=NAMES)
    parser.add_argument("--width", type=int, default=768, help="other sizes than GPT-2's, to try the benchmark out")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--vocab-size", type=int, default=50257)
    asked = parser.parse_args()
    pythons = {name: os.environ.get(ELSEWHERE[name], "") if name in ELSEWHERE else sys.executable for name in NAMES}
    if not find_spec("transformers"):
        pythons["transformers"] = ""
    names = [name for name in asked.only if pythons[name]]
    results: Json = {"machine": machine(), "not_at_hand": [name for name in NAMES if not pythons[name]]}
    for case in asked.cases:
        batch, context = map(int, case.split("x"))
        shape = {"width": asked.width, "layers": asked.layers, "heads": asked.heads, "vocab_size": asked.vocab_size}
        print(case, *names, file=sys.stderr, flush=True)
        given = {**shape, "batch": batch, "context": context}
        results[case] = compare({name: pythons[name] for name in names}, given, asked.rounds)
        write("train", results)


def compare(pythons: dict[str, str], case: Json, rounds: int) -> Json:
    """Everybody's steps in turn, and between them the machine's products; one round before these is not counted."""
    workers = {name: Worker(python, name, case) for name, python in pythons.items()}
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    products: dict[str, list[float]] = {"bfloat16": [], "float32": [], "square bfloat16": []}
    last: Json = {}
    for turn in range(rounds + 1):
        for name, worker in workers.items():
            last[name] = worker.step()
            print(name, last[name], file=sys.stderr, flush=True)
            if turn:
                seconds[name].append(last[name]["seconds"])
        for name, found in products.items():
            found.append(square_rate() if "square" in name else product_rate(case, getattr(torch, name)))
    for worker in workers.values():
        worker.end()
    result = rates(seconds, case["batch"] * case["context"], "tokens_per_s")
    best = {name: statistics.median(found) for name, found in products.items()}
    result["products_GFLOP_per_s"] = {name: round(rate) for name, rate in best.items()}
    shape = ModelConfig(
        family="gpt2", vocab_size=case["vocab_size"], context_length=1024, d_model=case["width"],
        n_layers=case["layers"], n_heads=case["heads"],
    )  # fmt: skip
    flops = flops_per_token(shape, case["context"])
    for name, one in result["contenders"].items():
        reached = one["tokens_per_s"] * flops / 1e9
        one |= {"loss": round(last[name]["loss"], 4), "peak_MB": last[name]["peak_MB"], "GFLOP_per_s": round(reached)}
        one["share_of_bfloat16"] = round(reached / best["bfloat16"], 3)
        one["share_of_square_bfloat16"] = round(reached / best["square bfloat16"], 3)
    result["GFLOP_per_token"] = round(flops / 1e9, 4)
    return result


class Worker:
    """A contender's process, asked for one step at a time."""

    def __init__(self, python: str, name: str, case: Json) -> None:
        self.name = name
        command = [python, str(CONTENDERS), name, json.dumps(case)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def step(self) -> Json:
        """What the next step gave."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self.process.wait()}")
        answer: Json = json.loads(line)
        return answer

    def end(self) -> None:
        """No more steps."""
        self.process.communicate()


def product_rate(case: Json, dtype: torch.dtype) -> float:
    """GFLOP/s of the model's own matrix products: of each weight, forward and both backward, as torch does them."""
    width, taken, flops = case["width"], 0.0, 0.0
    for columns, rows, times in (
        (width, width, 4 * case["layers"]),
        (width, 4 * width, case["layers"]),
        (4 * width, width, case["layers"]),
        (width, case["vocab_size"], 1),
    ):
        x, weight, gradient = (
            torch.randn(*size).to(dtype) for size in ((ROWS, columns), (rows, columns), (ROWS, rows))
        )
        for product in (
            lambda x=x, weight=weight: x @ weight.mT,
            lambda weight=weight, gradient=gradient: gradient @ weight,
            lambda x=x, gradient=gradient: gradient.mT @ x,
        ):
            taken += times * min(timed(product) for _ in range(3))
            flops += times * 2 * ROWS * columns * rows
    return flops / taken / 1e9


def square_rate(size: int = 2048) -> float:
    """GFLOP/s of one large square product in bfloat16."""
    matrix = torch.randn(size, size).bfloat16()
    return 2 * size**3 / min(timed(lambda: matrix @ matrix) for _ in range(6)) / 1e9


if __name__ == "__main__":
    main()
