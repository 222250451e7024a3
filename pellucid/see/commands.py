"""What the command line does with seeing: the page of a sentence, and the report of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pellucid.model.gpt import GPT
from pellucid.options import Report, See
from pellucid.pretrain.metrics import read_lines
from pellucid.see.page import room, write_see
from pellucid.see.report import write_report, write_runs_report
from pellucid.see.trace import trace
from pellucid.text.tokenizer import Tokenizer

SENTENCE = "The red fox has a lamp, and the lamp is red."


def see(options: See) -> tuple[dict[str, Any], str]:
    """`pellucid see`: writes the page; with --json the trace goes to stdout, and a page is written only with --html."""
    model, tokenizer = GPT.load(options.run), Tokenizer.load(options.run)
    text = options.text or own_text(options.run)
    html = options.html or (None if options.json else options.run / "see.html")
    if html is not None:
        write_see(model, tokenizer, text, html, title=options.run.resolve().name)
    if options.json:
        return trace(model, tokenizer, text, max_tokens=room(model.config)).to_json(), ""
    return {}, f"{html}: open it in a browser; it needs no network."


def own_text(run: Path) -> str:
    """What the run itself wrote last, or a short sentence where it wrote nothing."""
    written = [str(line.get("text", "")).strip() for line in read_lines(run / "samples.jsonl")]
    return next((text for text in reversed(written) if text), SENTENCE)


def report(options: Report) -> tuple[dict[str, Any], str]:
    """`pellucid report`: a quickstart's own report when it is given alone, else the runs side by side."""
    if len(options.runs) == 1 and (options.runs[0] / "report.json").is_file():
        write_report(options.runs[0], options.html)
    else:
        write_runs_report(options.runs, options.html)
    names = [str(run) for run in options.runs]
    return {"html": str(options.html), "runs": names}, f"{options.html}: open it in a browser; it needs no network."
