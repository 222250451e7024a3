"""Reports: the quickstart's whole way as a page to read, and any runs side by side.

`gather` reads a folder into plain values, pictures included; the templates say it in words. What is not there (a stage
that was left out, a corpus without a known floor) is left out of the page too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pellucid.config import ModelConfig
from pellucid.model.formats.folder import read_config, read_settings
from pellucid.model.gpt import GPT
from pellucid.pretrain.metrics import read_lines
from pellucid.runtime import DataError, PellucidError, problem, read_json, write_text
from pellucid.see.html import render
from pellucid.see.pictures import Curve, Level, head_picture, heads_picture, informative_head, loss_picture
from pellucid.see.references import reference_of
from pellucid.see.trace import trace
from pellucid.text.tokenizer import Tokenizer

STAGES = ("text", "model", "pretrain", "evaluate", "classify", "instruct")
SAMPLES = 6  # texts shown of each run
PICTURED = 24  # tokens in the attention picture


# ---------------------------------------------------------------- the quickstart


def write_report(folder: Path, html: Path) -> None:
    """Write `html`, the report of a quickstart folder (report.json, results/, metrics, the model itself).

    DataError where there is no report.json, or where a file that is there is broken.
    """
    write_text(html, render("report.html", title="From raw text to your own assistant", **gather(Path(folder))))


def gather(folder: Path) -> dict[str, Any]:
    """All that the report shows: numbers, texts and pictures; what is missing is None or empty."""
    results = {stage: _optional(folder / "results" / f"{stage}.json") for stage in STAGES}
    return {
        "report": read_json(folder / "report.json"),
        **results,
        "losses": loss_picture([read_curve(folder)], _levels(results["evaluate"])),
        "classifier_losses": loss_picture([read_curve(folder / "classifier")], unit="nats per text"),
        "assistant_losses": loss_picture([read_curve(folder / "assistant")], unit="nats per answer token"),
        "written": spread(read_lines(folder / "samples.jsonl"), SAMPLES),
        "attention": _attention(folder, (results["text"] or {}).get("sentence") or ""),
    }


def _optional(path: Path) -> Any:
    return read_json(path) if path.is_file() else None


def _levels(evaluate: dict[str, Any] | None) -> list[Level]:
    """What the pretraining loss is compared with."""
    found = evaluate or {}
    named = [
        (f"{found.get('ngram_order', '')}-gram model", (found.get("ngram") or {}).get("loss")),
        ("floor: the text's own entropy", found.get("floor_loss")),
    ]
    return [Level(name, loss) for name, loss in named if loss is not None]


def _attention(folder: Path, sentence: str) -> dict[str, Any] | None:
    """Pictures of a real trace of the pretrained model; None where the folder holds no model that can be read."""
    try:
        model, tokenizer = GPT.load(folder), Tokenizer.load(folder)
        picture = trace(model, tokenizer, sentence, max_tokens=PICTURED)
    except PellucidError:
        return None
    layer, head = informative_head(picture)
    return {
        "large": head_picture(picture, layer, head),
        "all": heads_picture(picture),
        "layer": layer + 1,
        "head": head + 1,
        "tokens": [piece.text for piece in picture.tokens],
    }


# ---------------------------------------------------------------- any runs


def write_runs_report(runs: Sequence[Path], html: Path) -> None:
    """Write `html`, one page about the runs: all losses in one picture, a table, samples of each.

    DataError for a folder that is not there or in which nothing was trained.
    """
    rows = [_run(Path(folder)) for folder in runs]
    found = [reference_of(Path(folder)) for folder in runs]
    reference = found[0] if len(found) == 1 else None
    picture = loss_picture([row["curve"] for row in rows], unit="nats", band=reference.band if reference else None)
    title = rows[0]["name"] if len(rows) == 1 else f"{len(rows)} runs side by side"
    write_text(html, render("runs.html", title=title, runs=rows, losses=picture, reference=reference))


def _run(folder: Path) -> dict[str, Any]:
    """One run as a row of the table; the best loss is that of the lowest evaluation, the last that of the newest."""
    lines = read_lines(folder / "metrics.jsonl")
    if not lines:
        found = "no folder" if not folder.is_dir() else "no metrics.jsonl with anything in it"
        raise DataError(problem(folder, found, "a run folder in which something was trained", "Check the path."))
    losses = [line["loss"] for line in lines if line.get("split") == "val" and "loss" in line]
    speeds = [line["tokens_per_s"] for line in lines if line.get("tokens_per_s")]
    return {
        "name": folder.resolve().name,
        "curve": read_curve(folder),
        "config": _config(folder),
        "command": _command(folder),
        "steps": max(line.get("step", 0) for line in lines),
        "tokens": max(line.get("tokens", 0) for line in lines),
        "best": min(losses, default=None),
        "last": losses[-1] if losses else None,
        "tokens_per_s": sum(speeds) / len(speeds) if speeds else None,
        "seconds": max(line.get("seconds") or 0 for line in lines) or None,
        "samples": spread(read_lines(folder / "samples.jsonl"), SAMPLES),
    }


def _config(folder: Path) -> ModelConfig | None:
    """The model's sizes by our names, or None where config.json is missing or of a kind that we do not know."""
    try:
        return read_config(read_settings(folder), folder / "config.json")[1]
    except PellucidError:
        return None


def _command(folder: Path) -> str:
    """The command line of the run, as run.json has it."""
    found = (_optional(folder / "run.json") or {}).get("command", "")
    return found if isinstance(found, str) else " ".join(map(str, found))


def read_curve(folder: Path) -> Curve:
    """The losses of a run's metrics.jsonl over the tokens it had seen."""
    points: dict[str, list[tuple[float, float]]] = {"train": [], "val": []}
    for line in read_lines(folder / "metrics.jsonl"):
        if line.get("split") in points and line.get("loss") is not None:
            points[line["split"]].append((float(line.get("tokens") or 0), float(line["loss"])))
    return Curve(folder.resolve().name, points["train"], points["val"])


def spread(lines: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """At most `most` of the lines, evenly spread, the first and the last among them."""
    if len(lines) <= most:
        return lines
    return [lines[round(i * (len(lines) - 1) / (most - 1))] for i in range(most)]
