"""What it takes to choose the next tokens: `python benchmarks/decoding/drawing.py [--threads N]`, medians in ms.

Random logits of GPT-2's vocabulary, as the compiled pass leaves them: rows of whole fours.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time

import torch

from pellucid.compute import keep_freed_memory
from pellucid.generation.sampling import Sampling, draw

VOCABULARY, TIMES = 50257, 20
SETTINGS = {
    "greedy": Sampling(),
    "temperature 0.8": Sampling(0.8),
    "top-k 50": Sampling(0.8, top_k=50),
    "top-p 0.9": Sampling(0.8, top_p=0.9),
}


def main() -> None:
    """Print a line for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    keep_freed_memory()
    for rows in (1, 8, 32):
        logits = (3 * torch.randn(rows, -(-VOCABULARY // 4) * 4))[:, :VOCABULARY]
        numbers = [random.random() for _ in range(rows)]
        found = {name: milliseconds(logits, sampling, numbers) for name, sampling in SETTINGS.items()}
        print(json.dumps({"rows": rows, **found}))


def milliseconds(logits: torch.Tensor, sampling: Sampling, numbers: list[float]) -> float:
    """The median of some calls, the first left out."""
    times = []
    for _ in range(TIMES + 1):
        began = time.perf_counter()
        draw(logits, sampling, None, numbers)
        times.append(time.perf_counter() - began)
    return round(1000 * statistics.median(times[1:]), 2)


if __name__ == "__main__":
    main()
