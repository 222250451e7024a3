"""Finetuning: our loop beside that of `llms-from-scratch`, and seeds 0 to 4 of the assistant and the classifier.

    python benchmarks/finetune.py [DATA]                          10 steps of each loop: some minutes
    python benchmarks/finetune.py [DATA] --only loops --steps 0   a whole epoch of each: about an hour
    python benchmarks/finetune.py --only seeds                    five quickstarts: half an hour
    python benchmarks/finetune.py --only seeds --minutes 30 --one-core --runs OUT   long ones: 90 min on 2 cores
    python benchmarks/finetune.py [DATA] --only sms balanced      five pretrained models and classifiers of each: 20 min

DATA is a folder with instruct/, gpt2/, classify/ and gutenberg/ (PELLUCID_DATA where it is not given). The loops need a
Python in which the package `llms-from-scratch` is installed (it pins other versions than ours: give it a venv of its
own): PELLUCID_LLMS_FROM_SCRATCH_PYTHON names it. Both start from the same random GPT-2 124M and see the
same eight records in each step; theirs computes in float32, as it comes, ours in the precision that a trial finds best.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from measure import machine, write
from scipy.stats import t

from pellucid.finetune.labelled import Labelled, read_labelled
from pellucid.finetune.splits import split_labelled
from pellucid.runtime import PellucidError

Json = dict[str, Any]
PELLUCID = str(Path(sys.executable).with_name("pellucid"))
LOOPS = Path(__file__).parent / "loops"
BATCH = 8
OURS = {
    "pellucid, the same tokens trained": ("same", "adamw"),
    "pellucid": ("ours", "adamw"),
    "pellucid, half the memory": ("ours", "adafactor"),
}
REPEATS = 6  # of the messages in the text: the quickstart repeats a user's own in the same way


def main() -> None:
    """Measure the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default=os.environ.get("PELLUCID_DATA"))
    parser.add_argument("--only", nargs="*", default=["loops"], choices=list(PARTS))
    parser.add_argument("--steps", type=int, default=10, help="of each loop; 0 is a whole epoch")
    parser.add_argument("--layers", type=int, default=12, help="of the GPT-2; fewer to try the benchmark out")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)))
    parser.add_argument("--minutes", type=float, default=5.2, help="of each quickstart")
    parser.add_argument("--one-core", action="store_true", help="as many quickstarts at once as cores, each on its own")
    parser.add_argument("--runs", type=Path, help="where the quickstarts stay, and go on when interrupted")
    arguments = parser.parse_args()
    if not arguments.data and set(arguments.only) != {"seeds"}:
        parser.error("give a folder with instruct/ and gpt2/, or set PELLUCID_DATA")
    for part in arguments.only:
        print(part, file=sys.stderr, flush=True)
        try:
            write(f"finetune_{part}", {"machine": machine(), **PARTS[part](arguments)})
        except PellucidError as error:
            raise SystemExit(str(error)) from None


# ---------------------------------------------------------------- the loops


def loops(arguments: argparse.Namespace) -> Json:
    """Seconds, peak memory and validation loss of each loop, each in a process of its own."""
    theirs = os.environ.get("PELLUCID_LLMS_FROM_SCRATCH_PYTHON")
    if not theirs:
        raise SystemExit(
            "Set PELLUCID_LLMS_FROM_SCRATCH_PYTHON to a Python that has the package llms-from-scratch "
            "(python -m venv peer && peer/bin/pip install llms-from-scratch; then peer/bin/python)."
        )
    data = Path(arguments.data).resolve()
    records = json.loads((data / "instruct" / "instruction-data.json").read_text(encoding="utf-8"))
    train, val = records[: int(len(records) * 0.85)], records[int(len(records) * 0.95) :]  # as in the book's chapter 7
    order = random.Random(123).sample(range(len(train)), len(train))
    batches = [order[first : first + BATCH] for first in range(0, len(order) - BATCH + 1, BATCH)]
    steps = arguments.steps or len(batches)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = {"train": train, "val": val, "batches": batches, "steps": steps, "layers": arguments.layers}
        (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        run(sys.executable, LOOPS / "start.py", folder, data)
        found = {
            "llms-from-scratch": run(theirs, LOOPS / "theirs.py", folder, data),
            **{name: run(sys.executable, LOOPS / "ours.py", folder, data, *how) for name, how in OURS.items()},
        }
    peer = found["llms-from-scratch"]
    for one in found.values():
        one["epoch_s"] = round(one["seconds"] / steps * len(batches), 1)
        one["share_of_time"] = round(one["seconds"] / peer["seconds"], 3)
        one["share_of_memory"] = round(one["peak_MB"] / peer["peak_MB"], 3)
    said = "a whole epoch" if steps == len(batches) else f"{steps} of {len(batches)} steps; epoch_s is extrapolated"
    return {"measured": said, "batch": BATCH, "layers": arguments.layers, "contenders": found}


def run(python: str, script: Path, *arguments: object) -> Json:
    """What a loop's process prints last."""
    print(script.name, *arguments[2:], file=sys.stderr, flush=True)
    done = subprocess.run([python, str(script), *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{script} ended with {done.returncode}")
    result: Json = json.loads(done.stdout.splitlines()[-1])
    return result


# ---------------------------------------------------------------- seeds


def seeds(arguments: argparse.Namespace) -> Json:
    """Quickstarts on the embedded corpus: the assistant's exact match, whole and by family, its ends, and spam's F1."""
    every = sorted(os.sched_getaffinity(0))
    free: SimpleQueue[list[int]] = SimpleQueue()  # cores that nobody computes on
    for cores in [[core] for core in every] if arguments.one_core else [every]:
        free.put(cores)

    def measured(seed: int) -> Json:
        cores = free.get()
        try:
            row = quickstart_scores(arguments, seed, cores)
        finally:
            free.put(cores)
        print(seed, row, file=sys.stderr, flush=True)
        return row

    with ThreadPoolExecutor(max_workers=free.qsize()) as pool:
        rows = list(pool.map(measured, arguments.seeds))
    found = summarised(arguments.seeds, rows)
    found["mean"]["lowest of the families' means"] = min(
        mean for name, mean in found["mean"].items() if name.startswith(FAMILY)
    )
    return found


FAMILY = "exact match: "


def quickstart_scores(arguments: argparse.Namespace, seed: int, cores: list[int]) -> Json:
    """What a quickstart on these cores reports."""
    with contextlib.nullcontext(arguments.runs) if arguments.runs else tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"seed-{seed}"
        call("quickstart", "--out", out, "--seed", seed, "--minutes", arguments.minutes, cores=cores)
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assistant = report["instruct"]
    return {
        "exact_match": assistant["exact_match"],
        "worst_family": min(assistant["families"].values()),
        "stop_rate": assistant["stop_rate"],
        "spam_f1": report["classify"]["f1"],
        "seconds": report["seconds"]["total"],
        **{FAMILY + name: share for name, share in assistant["families"].items()},
    }


def sms(arguments: argparse.Namespace) -> Json:
    """All SMS messages: F1 of spam on a fifth of them, beside the SVM's on the same splits."""
    every = read_labelled(sms_file(arguments))
    return summarised(arguments.seeds, [spam_scores(arguments, seed, every) for seed in arguments.seeds])


def balanced(arguments: argparse.Namespace) -> Json:
    """As many messages of both kinds, 747 and 747, as in the book's chapter 6; then those that repeat are dropped."""
    kinds: dict[str, list[Labelled]] = {}
    for one in read_labelled(sms_file(arguments)):
        kinds.setdefault(one.label, []).append(one)
    fewest = min(map(len, kinds.values()))
    rows = []
    for seed in arguments.seeds:
        chosen = [one for members in kinds.values() for one in random.Random(seed).sample(members, fewest)]
        rows.append(spam_scores(arguments, seed, chosen))
    return summarised(arguments.seeds, rows)


def sms_file(arguments: argparse.Namespace) -> Path:
    """Where the SMS messages are."""
    return Path(arguments.data).resolve() / "classify" / "SMSSpamCollection.tsv"


def spam_scores(arguments: argparse.Namespace, seed: int, labelled: list[Labelled]) -> Json:
    """A classifier's scores on its test split (70/10/20), and its seconds: of the whole process of finetuning.

    Its base model was pretrained on three books and, REPEATS times, the messages of train and val, as text.
    """
    books = [Path(arguments.data).resolve() / "gutenberg" / name for name in ("pg11.txt", "pg84.txt", "pg174.txt")]
    splits = split_labelled(labelled, seed=seed)  # the one that `finetune classify` makes with this seed
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        everything, read = folder / "messages.jsonl", folder / "read.jsonl"
        write_lines(everything, [{"text": one.text, "label": one.label} for one in labelled])
        write_lines(read, [{"text": one.text} for one in splits["train"] + splits["val"]] * REPEATS)
        call("tokenizer", "train", *books, read, "--vocab-size", 1024, "--out", folder / "tokenizer")
        call("encode", *books, read, "--tokenizer", folder / "tokenizer", "--out", folder / "shards")
        call("pretrain", "--data", folder / "shards", "--model", "laptop", "--steps", 2000, "--batch-size", 8,
             "--context", 128, "--seed", seed, "--out", folder / "base")  # fmt: skip
        began = time.perf_counter()
        given = ("--data", everything, "--seed", seed, "--out", folder / "spam")
        found = call("finetune", "classify", folder / "base", *given)
        seconds = round(time.perf_counter() - began, 1)
    row = {**{name: found[name] for name in ("texts", "f1", "accuracy", "svm_f1")}, "seconds": seconds}
    print(row, file=sys.stderr, flush=True)
    return row


def write_lines(path: Path, rows: list[Json]) -> None:
    """Write a jsonl file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def call(*arguments: object, cores: list[int] | None = None) -> Json:
    """A verb's JSON; computed on these cores where some are named."""
    command = [PELLUCID, *map(str, arguments), "--json"]
    if cores:
        command = ["taskset", "--cpu-list", ",".join(map(str, cores)), *command]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"pellucid {arguments[0]} ended with {done.returncode}")
    result: Json = json.loads(done.stdout)
    return result


def summarised(seeds: list[int], rows: list[Json]) -> Json:
    """Each seed's figures, their means, and the 95 % interval of each mean (Student's t over the seeds)."""
    figures: dict[str, list[float]] = {}  # of a family without a question in some seed's test: of the other seeds
    for row in rows:
        for name in row.keys() - {"texts"}:  # how many were tested is no score
            figures.setdefault(name, []).append(row[name])
    return {
        "seeds": dict(zip(map(str, seeds), rows, strict=True)),
        "mean": {name: round(statistics.fmean(values), 4) for name, values in sorted(figures.items())},
        "interval": {name: interval(values) for name, values in sorted(figures.items())},
    }


def interval(values: list[float]) -> list[float] | None:
    """Where the mean lies with 95 %; None for a single value."""
    if len(values) < 2:
        return None
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return [round(statistics.fmean(values) - half, 4), round(statistics.fmean(values) + half, 4)]


PARTS = {"loops": loops, "seeds": seeds, "sms": sms, "balanced": balanced}


if __name__ == "__main__":
    main()
