"""What all benchmarks share: contenders measured in turn, several times, in one run; medians, ratios, JSON, a table.

Machines are shared and noisy: contenders take turns, so that a slow minute hits all of them, and medians are compared.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
Json = dict[str, Any]


def machine() -> Json:
    """What the figures were measured on: processor, cores, versions, and how fast it copies memory."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), "")
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": names[0] if names else platform.processor(),
        "features": [flag for flag in known if f" {flag}" in flags],
        "cores": cores,
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "memory_copy_GB_per_s": round(copy_rate(), 1),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def copy_rate(size: int = 1 << 28) -> float:
    """GB/s at which one thread copies memory (bytes read; as many are written)."""
    source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
    return size / 1e9 / min(timed(lambda: np.copyto(target, source)) for _ in range(5))


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turn(contenders: dict[str, Callable[[], Any]], rounds: int = 7) -> dict[str, list[float]]:
    """Seconds of each contender in each round; one round before these is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            took = timed(work)
            if turn:
                seconds[name].append(took)
    return seconds


def rates(seconds: dict[str, list[float]], amount: float, unit: str) -> Json:
    """Median amount per second of each contender, the spread, and how many times faster than each other ours is."""
    found: Json = {
        name: {
            unit: round(amount / statistics.median(took), 2),
            "lowest": round(amount / max(took), 2),
            "highest": round(amount / min(took), 2),
        }
        for name, took in seconds.items()
    }
    ours = statistics.median(seconds["pellucid"])
    ratios = {name: round(statistics.median(took) / ours, 2) for name, took in seconds.items() if name != "pellucid"}
    return {"contenders": found, "pellucid_is_times_faster_than": ratios}


def run_process(arguments: list[str], environment: dict[str, str] | None = None) -> tuple[float, float]:
    """Wall seconds and peak memory in MB of a whole process; an error of it is ours."""
    code = (
        "import resource, subprocess, sys, time; began = time.perf_counter();"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True);"
        "done.returncode and sys.exit(done.stderr);"
        "print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak / (1024 if sys.platform != "darwin" else 1 << 20)


def peak_memory() -> float:
    """Peak memory of this process in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if sys.platform != "darwin" else 1 << 20)


def write(name: str, results: Json) -> None:
    """Write results/NAME.json and print it."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
