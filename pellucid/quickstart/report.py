"""The end of a quickstart: report.json, report.html, and the machine that they were measured on."""

from __future__ import annotations

import os
import platform
import sys
import time

import torch

from pellucid.quickstart.run import Results, Run, say
from pellucid.runtime import write_json
from pellucid.see.report import write_report
from pellucid.version import __version__


def write_reports(run: Run) -> None:
    """report.json and report.html."""
    say("\n── 7  Report")
    began = time.monotonic()
    results = run.results
    evaluated, scores, assistant = results["evaluate"], results["classify"]["scores"], results["instruct"]
    report: Results = {
        "seconds": {name: result["seconds"] for name, result in results.items()},
        "pretrain": {
            "val_loss": results["pretrain"]["val_loss"],
            "test_loss": evaluated["model"]["loss"],
            "test_bits_per_byte": evaluated["model"]["bits_per_byte"],
            "floor_loss": evaluated["floor_loss"],
            "ngram_loss": evaluated["ngram"]["loss"],
            "tokens_per_s": results["pretrain"]["tokens_per_s"],
        },
        "classify": {key: scores[key] for key in ("accuracy", "precision", "recall", "f1")}
        | {"baseline_f1": results["classify"]["baseline"]["f1"]},
        "instruct": {
            "exact_match": assistant["scores"]["exact_match"],
            "baseline_exact_match": assistant["baseline"]["exact_match"],
            "families": assistant["scores"]["families"],
            "stop_rate": assistant["scores"]["stop_rate"],
        },
        "machine": machine() | {"peak_memory_gb": max(result["peak_memory_gb"] for result in results.values())},
        "version": __version__,
        "command": " ".join(["pellucid", *sys.argv[1:]]),
    }
    report["seconds"] |= {"report": 0.0, "total": round(run.spent(), 2)}
    write_json(run.out / "report.json", report)
    write_report(run.out, run.out / "report.html")
    seconds = round(time.monotonic() - began, 2)
    report["seconds"] |= {"report": seconds, "total": round(run.spent() + seconds, 2)}
    write_json(run.out / "report.json", report)


def machine() -> Results:
    """What the numbers were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0.0
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "platform": platform.platform(),
    }
