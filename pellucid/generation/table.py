"""The choice of the next token to look at: the likeliest tokens with all their columns, as data and as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from pellucid.generation.sampling import NextToken
from pellucid.text.look import escaped, render
from pellucid.text.tokenizer import Tokenizer

DIGITS = 6  # decimals of the numbers in the JSON
BAR = 20  # cells of a bar, at most
TOKEN = 20  # and of a token
BAR_COLOUR = "color(67)"


@dataclass(frozen=True)
class Candidate:
    """One token that might come next; `content` is its bytes."""

    id: int
    content: bytes
    logit: float
    penalised: float
    scaled: float
    kept: bool
    probability: float
    cumulative: float
    drawn: bool

    def json(self) -> dict[str, Any]:
        """What --json says."""
        names = ("logit", "penalised", "scaled", "probability", "cumulative")
        numbers = {name: round(getattr(self, name), DIGITS) for name in names}
        text = self.content.decode("utf-8", "replace")
        return {"id": self.id, "text": text, **numbers, "kept": self.kept, "drawn": self.drawn}


@dataclass(frozen=True)
class Choice:
    """The likeliest tokens, and how many others there are and what probability they have together."""

    rows: list[Candidate]
    others: int
    others_probability: float

    def json(self) -> dict[str, Any]:
        """What --json says."""
        others = {"tokens": self.others, "probability": round(self.others_probability, DIGITS)}
        return {"next": [row.json() for row in self.rows], "others": others}


def look_at(columns: NextToken, drawn: int, tokenizer: Tokenizer, most: int = 10) -> Choice:
    """The `most` likeliest tokens of the first row, the likeliest first, and behind them the drawn one if not there."""
    shown = columns.order[0, :most].tolist()
    shown += [] if drawn in shown else [drawn]
    names = ("logit", "penalised", "scaled", "kept", "probability", "cumulative")
    columns_of_rows = zip(*(getattr(columns, name)[0, shown].tolist() for name in names), strict=True)
    rows = [
        Candidate(token, tokenizer.token_bytes(token), **dict(zip(names, values, strict=True)), drawn=token == drawn)
        for token, values in zip(shown, columns_of_rows, strict=True)
    ]
    others = columns.probability[0].double()
    others[shown] = 0
    return Choice(rows, len(others) - len(shown), float(others.sum()))


def draw_table(choice: Choice, title: str, with_penalty: bool, console: Console) -> str:
    """The table as people read it; a last line says what the tokens have together that are not shown."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("token", max_width=TOKEN, no_wrap=True)
    for name in ("logit", *(["penalised"] if with_penalty else []), "scaled", "kept", "probability"):
        table.add_column(name, justify="center" if name == "kept" else "right", no_wrap=True)
    table.add_column("", max_width=BAR)
    table.add_column("cumulative", justify="right", no_wrap=True)
    longest = max(row.probability for row in choice.rows)
    for row in choice.rows:
        numbers = [row.logit, *([row.penalised] if with_penalty else []), row.scaled]
        table.add_row(
            Text(("→ " if row.drawn else "  ") + escaped(row.content), style="bold" if row.drawn else ""),
            *(f"{number:.2f}" for number in numbers),
            "✓" if row.kept else "·",
            percent(row.probability) if row.kept else "",
            Bar(longest, 0, row.probability, color=BAR_COLOUR) if row.kept else "",
            percent(row.cumulative) if row.kept else "",
            style="" if row.kept else "dim",
        )
    parts: list[RenderableType] = [title, table]
    if choice.others:
        parts.append(f"  {choice.others:,} others: {percent(choice.others_probability)} together; → is drawn")
    return render(parts, console)


def percent(share: float) -> str:
    """`12.3 %`; what is above 0 never shows as 0."""
    if share == 0:
        return "0 %"
    return f"{share:.1%}".replace("%", " %") if share >= 0.0005 else "< 0.1 %"
