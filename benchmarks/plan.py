"""What `pellucid plan` says beside what then happens: `python benchmarks/plan.py [DATA] [--seconds N]`.

For each shape the plan, and then the run that it planned, as processes; speed, peak memory and time of both.
DATA is a folder with gutenberg/*.txt (PELLUCID_DATA where it is not given).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import machine, write

Json = dict[str, Any]
PELLUCID = str(Path(sys.executable).with_name("pellucid"))
RUNS = {
    "laptop, 32 × 128": ["--model", "laptop", "--batch-size", "32", "--context", "128"],
    "laptop-large, 8 × 256": ["--model", "laptop-large", "--batch-size", "8", "--context", "256"],
    "laptop-large-llama, 8 × 256": ["--model", "laptop-large-llama", "--batch-size", "8", "--context", "256"],
    "gpt2, 4 × 256": ["--model", "gpt2", "--batch-size", "4", "--context", "256"],
}


def main() -> None:
    """Measure all shapes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", default=os.environ.get("PELLUCID_DATA"))
    parser.add_argument("--seconds", type=float, default=60, help="how long each run is to train, about")
    parser.add_argument("--only", nargs="*", default=list(RUNS), choices=list(RUNS))
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("give a folder with gutenberg/*.txt, or set PELLUCID_DATA")
    results: Json = {"machine": machine(), "seconds": arguments.seconds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        books = [str(path) for path in sorted(Path(arguments.data, "gutenberg").glob("*.txt"))]
        call("tokenizer", "train", *books, "--vocab-size", "4096", "--out", str(folder / "tokenizer"))
        call("encode", *books, "--tokenizer", str(folder / "tokenizer"), "--out", str(folder / "shards"))
        for run in arguments.only:
            print(run, file=sys.stderr, flush=True)
            results[run] = compare(RUNS[run], folder, arguments.seconds)
    write("plan", results)


def call(*arguments: str) -> tuple[Json, float]:
    """A verb's JSON, and the peak memory of its process in bytes."""
    code = (
        "import resource, subprocess, sys;"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True);"
        "done.returncode and sys.exit(done.stderr);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); print(done.stdout)"
    )
    command = [sys.executable, "-c", code, PELLUCID, *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
    peak, _, content = done.stdout.partition("\n")
    return json.loads(content), int(peak) * (1 if sys.platform == "darwin" else 1024)


def compare(options: list[str], folder: Path, seconds: float) -> Json:
    """Plan, then run; both figures and how far the plan was off."""
    shards, out = str(folder / "shards"), folder / "run"
    steps = max(10, round(seconds / call("plan", *options, "--data", shards, "--steps", "1")[0]["run"]["step_s"]))
    planned = call("plan", *options, "--data", shards, "--steps", str(steps))[0]["run"]
    _, peak = call("pretrain", *options, "--data", shards, "--steps", str(steps), "--out", str(out))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["split"] == "train"]
    subprocess.run(["rm", "-r", str(out)], check=True)
    happened = {
        "tokens_per_s": statistics.median(line["tokens_per_s"] for line in trained),
        "peak_memory": peak,
        "minutes": trained[-1]["seconds"] / 60,
    }
    off = {name: round(planned[name] / value - 1, 3) for name, value in happened.items()}
    return {"steps": steps, "planned": {name: planned[name] for name in happened}, "happened": happened, "off": off}


if __name__ == "__main__":
    main()
