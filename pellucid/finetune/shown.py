"""Examples as the model will meet them, before any training: what is trained stands in colour.

Most mistakes of a data file show here at once: a prompt that is trained, an answer that does not end, a wrong role.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.text import Text

from pellucid.runtime import printable, terminal
from pellucid.text.tokenizer import Tokenizer

EXAMPLES = 3
TOKENS = 200  # shown of each
TRAINED = "black on color(153)"


def show_examples(
    rows: Sequence[tuple[list[int], list[bool]]],
    tokenizer: Tokenizer,
    console: Console | None = None,
    most: int = EXAMPLES,
) -> None:
    """Print the first examples on stderr, trained tokens coloured; only on a terminal, for a person."""
    console = console or terminal()
    if not console.is_terminal:
        return
    plain = console.color_system is None or console.no_color
    how = "between [ and ]" if plain else "in colour"
    console.print(f"The first of {len(rows):,} examples; trained is what stands {how}:", style="bold")
    for ids, trained in rows[:most]:
        console.print(rendered(ids[:TOKENS], trained[:TOKENS], tokenizer, plain), soft_wrap=True)
        if len(ids) > TOKENS:
            console.print(f"… and {len(ids) - TOKENS} more tokens", style="dim")
    console.print()


def rendered(ids: Sequence[int], trained: Sequence[bool], tokenizer: Tokenizer, plain: bool = False) -> Text:
    """One example as text: its tokens with their roles and ends, runs of trained ones marked."""
    text = Text()
    for learnt, run in groupby(zip(ids, trained, strict=True), key=lambda pair: pair[1]):
        said = printable(tokenizer.decode([token for token, _ in run]))
        text.append(f"[{said}]" if plain and learnt else said, style=TRAINED if learnt and not plain else "")
    return text
