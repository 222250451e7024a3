"""`pellucid compare`: two models on the same held-out questions, as numbers and as a page of answers side by side.

Every word on the page that comes from a file, a model or a judge is text, never markup; the page loads nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pellucid.finetune.answers import in_brackets
from pellucid.finetune.compare import chosen, compare_answers, contender
from pellucid.finetune.judge import Judge
from pellucid.finetune.studies import held_out
from pellucid.options import Compare
from pellucid.runtime import ConfigError, DataError, problem, write_text
from pellucid.see.html import render

MEASURES = {  # of scores: what it is called, whether it is a share, and what is better
    "exact_match": ("answered exactly", True, "more"),
    "f1": ("words in common with the right answer, F1", True, "more"),
    "stop_rate": ("ended by itself", True, "more"),
    "tokens": ("tokens in an answer", False, ""),
    "repetition": ("said again within an answer", True, "less"),
}


def compare(options: Compare) -> tuple[dict[str, Any], str]:
    """Ask both models the same questions, count, and write the page."""
    judge = judge_of(options)
    if options.max_tokens < 1:
        raise ConfigError(problem("--max-tokens", str(options.max_tokens), "1 or more", "100 is the default."))
    found = held_out(options.data, (options.run_a, options.run_b), options.seed)
    examples = chosen(found.examples, options.questions, found.seed)
    a, b = (contender(run, examples, options.max_tokens) for run in (options.run_a, options.run_b))
    result = {**compare_answers(a, b, judge), "data": options.data.name, "seed": found.seed, "unsure": found.unsure}
    if options.html:
        write_text(options.html, page(result))
    return {**result, "html": str(options.html) if options.html else None}, "\n".join(lines(result, options.html))


def judge_of(options: Compare) -> Judge | None:
    """The judge that the command line names; its key comes from a file, so that it stands in no list of processes."""
    if not options.judge:
        names = ("judge_model", "judge_key_file", "judge_tokens", "repeats")
        given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) != getattr(Compare, name)]
        if given:
            advice = "Only a judge has that: name one, or leave it out."
            raise ConfigError(problem(", ".join(given), "no judge", "--judge URL", advice))
        return None
    key = ""
    if options.judge_key_file:
        try:
            key = options.judge_key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            advice = "Check the path."
            raise DataError(problem(options.judge_key_file, f"no text ({error})", "a key", advice)) from error
        if not key.isascii() or not key.isprintable():
            raise DataError(problem(options.judge_key_file, "no key on a single line", "one", "Check the file."))
    return Judge(options.judge, options.judge_model, key, options.repeats, max_tokens=options.judge_tokens)


def page(result: dict[str, Any]) -> str:
    """The page as text: where the two differ first, then where they don't."""
    rows = sorted(result["questions"], key=lambda row: (row["checks"] == "tie", row["a"]["said"] == row["b"]["said"]))
    title = f"{result['a']['name']} beside {result['b']['name']}"
    return render("compare.html", title=title, measures=MEASURES, **{**result, "questions": rows})


def lines(result: dict[str, Any], html: Path | None) -> list[str]:
    """The numbers for a terminal."""
    names = [result[side]["name"] for side in "ab"]
    width = max(len(label) for label, _, _ in MEASURES.values())
    count, known = result["checks"]["questions"], "" if result["unsure"] else "held-out "
    asked = f"{count} {known}question{'s' if count > 1 else ''} of {result['data']}"
    unsure = f", perhaps known to {' and '.join(result['unsure'])}" if result["unsure"] else ""
    found = [f"{asked}{unsure}, {'95 % intervals in brackets' if count > 1 else 'too few for intervals'}"]
    found.append(f"{'':<{width}}  {'a: ' + names[0]:<26} {'b: ' + names[1]}")
    for key, (label, share, _) in MEASURES.items():
        cells = [_cell(result[side]["scores"], key, share) for side in "ab"]
        found.append(f"{label:<{width}}  {cells[0]:<26} {cells[1]}")
    cells = [_perplexity(result[side]["scores"]["reference_perplexity"]) for side in "ab"]
    found.append(f"{'perplexity of the right answers':<{width}}  {cells[0]:<26} {cells[1]}")
    found.append("better by these checks: " + _tally(result["checks"], names))
    if judge := result["judge"]:
        found.append(f"better by {judge['model']}, each in both orders: " + _tally(judge, names))
        if judge["first_share"] is not None:
            found.append(f"of the answers it took, {judge['first_share']:.1%} stood first (50 % is fair)")
    return [*found, *([f"{html}: open it in a browser; it needs no network."] if html else [])]


def _cell(scores: dict[str, Any], key: str, share: bool) -> str:
    form = ".1%" if share else ".1f"
    return f"{scores[key]:{form}}{in_brackets(scores['intervals'][key], form)}"


def _perplexity(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"


def _tally(found: dict[str, Any], names: list[str]) -> str:
    lost = "".join(f", {found[name]} {name}" for name in ("unclear", "failed") if found[name])
    return (
        f"a {found['a']}, b {found['b']}, tie {found['tie']}{lost}; {names[0]} has "
        f"{found['a_share']:.1%} of the points{in_brackets(found['interval'], '.1%')}"
    )
