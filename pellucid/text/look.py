"""Tokenizers to look at: a text in coloured pieces, how a word was merged, and kinds of text side by side.

Each view is data first (what --json prints) and drawn from that data. Colours are a light blue and a light orange in
turn, which colour-blind people tell apart, under black letters, so that they read on dark and light terminals.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import regex
from rich.bar import Bar
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from pellucid.options import TokenizerReport, TokenizerShow
from pellucid.runtime import DataError, Verbatim, inform, printable, problem, progress_bar, utf8_input
from pellucid.text.bpe import BPETokenizer
from pellucid.text.character import CharacterTokenizer
from pellucid.text.documents import read_documents
from pellucid.text.gpt2_files import gpt2_if_at_hand
from pellucid.text.pieces import cut, utf8
from pellucid.text.samples import SAMPLES
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.word import WordTokenizer

Outcome = tuple[dict[str, Any], str]  # what --json prints, and what people read
COLOURS = ("black on color(153)", "black on color(222)")
UNKNOWN_COLOUR = "bold underline white on color(88)"
BAR_COLOURS = ("color(67)", "color(172)", "color(72)", "color(139)")
TREES = 5  # words drawn
LONGEST = 100  # bytes of such a word
NAME = 24  # characters of a tokenizer's name in the report
GAP = 4  # cells from one byte of a tree to the next


# ---------------------------------------------------------------- a text in pieces


@dataclass(frozen=True)
class Split:
    """A text as one tokenizer cuts it: (id, bytes) of each token; no ids where only the rule of a kind was asked."""

    name: str
    tokens: Sequence[tuple[int | None, bytes]]
    unknown_id: int | None = None

    @property
    def bytes(self) -> int:
        """Of the whole text."""
        return sum(len(content) for _, content in self.tokens)

    @property
    def unknown(self) -> int:
        """How many tokens are not in the vocabulary."""
        return sum(token is not None and token == self.unknown_id for token, _ in self.tokens)

    def caption(self) -> str:
        """`12 tokens, 3.25 bytes a token`."""
        count = len(self.tokens)
        unknown = f", {self.unknown:,} unknown" if self.unknown else ""
        return f"{count:,} tokens, {self.bytes / max(1, count):.2f} bytes a token{unknown}"

    def json(self) -> dict[str, Any]:
        """What --json says."""
        start, rows = 0, []
        for token, content in self.tokens:
            end = start + len(content)
            rows.append({"id": token, "text": content.decode("utf-8", "replace"), "start": start, "end": end})
            start = end
        per_token = round(self.bytes / len(rows), 3) if rows else None
        numbers = {"count": len(rows), "bytes": self.bytes, "bytes_per_token": per_token, "unknown": self.unknown}
        return {"tokenizer": self.name, "tokens": rows, **numbers}


def split_by(name: str, tokenizer: Tokenizer, text: str) -> Split:
    """`text` in the tokens of a tokenizer."""
    content = utf8(text)
    tokens = [(piece.id, content[piece.start : piece.end]) for piece in tokenizer.pieces(text)]
    return Split(name, tokens, tokenizer.unknown_id)


def split_by_rules(text: str) -> list[Split]:
    """`text` in words and in characters, as every vocabulary of these kinds would cut it."""
    return [
        Split(name, [(None, utf8(piece)) for piece in kind.split(text)])
        for name, kind in (("words", WordTokenizer), ("characters", CharacterTokenizer))
    ]


def show_tokens(options: TokenizerShow) -> Outcome:
    """`pellucid tokenizer show`. The JSON is what `Split.json` says, or a list of that for several tokenizers."""
    with utf8_input():
        text = sys.stdin.read() if options.text == "-" else options.text
    utf8(text)  # refuses what is no text, by its place in the whole
    tokenizers: dict[str, Tokenizer] = {name: Tokenizer.load(name) for name in options.tokenizer}
    if not options.tokenizer:
        if (gpt2 := gpt2_if_at_hand()) is not None:
            tokenizers["gpt2"] = gpt2
        else:
            inform(
                "Without --tokenizer, GPT-2's would be here, too; PELLUCID_DATA lacks it: --tokenizer gpt2 fetches it."
            )
    splits = [split_by(name, tokenizer, text) for name, tokenizer in tokenizers.items()]
    if options.kinds or not options.tokenizer:
        splits = [*split_by_rules(text), *splits]
    for split in splits:
        if split.unknown:
            inform(f"{split.name}: {split.unknown:,} of {len(split.tokens):,} tokens are not in the vocabulary.")
    console = Console(highlight=False, markup=False, emoji=False)
    with_ids = len(splits) == 1
    drawn: list[RenderableType] = [part for split in splits for part in draw_split(split, console, with_ids)]
    results = [split.json() for split in splits]
    if options.tree:
        trees = {name: word_trees(t, text) for name, t in tokenizers.items() if isinstance(t, BPETokenizer)}
        if not trees:
            found = "no byte-pair tokenizer"
            raise DataError(problem("--tree", found, "one, since only BPE merges", "Name one with --tokenizer."))
        for result in results:
            if result["tokenizer"] in trees:
                result["trees"] = [[root.json() for root in roots] for roots in trees[result["tokenizer"]]]
        drawn += [part for name in trees for part in draw_words(name, trees[name], console)]
    return results[0] if len(results) == 1 else {"tokenizers": results}, render(drawn, console)


def render(parts: Iterable[RenderableType], console: Console) -> Verbatim:
    """What `console` would print; plain strings are never wrapped."""
    with console.capture() as capture:
        for part in parts:
            console.print(_Printable(part), soft_wrap=isinstance(part, str))
    return Verbatim(capture.get().rstrip("\n"))


@dataclass(frozen=True)
class _Printable:
    """What Rich draws, with its colours; other escape sequences came in a name or a text, and are shown, not obeyed."""

    part: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.part, options):
            yield Segment(printable(segment.text), segment.style, segment.control)


def in_colour(console: Console) -> bool:
    """Whether the two backgrounds can be shown (a terminal of few colours would show one for both)."""
    return console.color_system in ("256", "truecolor") and not console.no_color


def draw_split(split: Split, console: Console, with_ids: bool) -> Iterator[RenderableType]:
    """The pieces of a text, as wide as the console, under a line that counts them."""
    if not in_colour(console):
        yield from ([] if with_ids else [f"{split.name}:"])
        yield "|".join(escaped(content, " ", "\\n") for _, content in split.tokens)
    else:
        yield Text.assemble((split.name, "bold"), "  ", (split.caption(), "dim"))
        yield from _coloured_lines(split, console.width)
    if with_ids:
        yield " ".join(str(token) for token, _ in split.tokens)
    if not in_colour(console):
        yield split.caption()
    if not with_ids:
        yield ""


def _coloured_lines(split: Split, width: int) -> Iterator[Text]:
    line = Text(no_wrap=True)
    for (token, content), colour in zip(split.tokens, cycle(COLOURS)):
        shown = escaped(content, "·", "⏎")
        if line and line.cell_len + cell_len(shown) > width:
            yield line
            line = Text(no_wrap=True)
        line.append(shown, UNKNOWN_COLOUR if token is not None and token == split.unknown_id else colour)
        if content.endswith(b"\n"):
            yield line
            line = Text(no_wrap=True)
    if line:
        yield line


def escaped(content: bytes, space: str = "·", newline: str = "⏎") -> str:
    """A token's bytes to look at: spaces and newlines as given, tabs as ⇥, what is no whole character as \\x…."""
    text = content.decode("utf-8", "backslashreplace")
    return printable(text.replace("\t", "⇥")).replace(" ", space).replace("\n", newline)


# ---------------------------------------------------------------- how a word was merged


@dataclass(frozen=True)
class Node:
    """A token of a merge tree: a byte, or two merged, as which step in this word and by the merge of which rank."""

    id: int
    content: bytes
    rank: int | None = None
    step: int = 0
    left: Node | None = None
    right: Node | None = None

    def leaves(self) -> list[Node]:
        """Its bytes from left to right."""
        return [*self.left.leaves(), *self.right.leaves()] if self.left and self.right else [self]

    def joints(self) -> list[Node]:
        """The merges in it."""
        return [*self.left.joints(), *self.right.joints(), self] if self.left and self.right else []

    def json(self) -> dict[str, Any]:
        """What --json says."""
        here = {"id": self.id, "text": self.content.decode("utf-8", "backslashreplace")}
        if not (self.left and self.right):
            return here
        return here | {"rank": self.rank, "step": self.step, "parts": [self.left.json(), self.right.json()]}


def merge_tree(tokenizer: BPETokenizer, piece: bytes) -> list[Node]:
    """How a piece of text (a word with the space before it) was merged: the tree of each token that came out."""
    ids = {content: token for token, content in tokenizer.ordinary_tokens().items()}
    ranks: dict[tuple[int, int], int] = {}
    for rank, pair in enumerate(tokenizer.merges()):
        ranks.setdefault(pair, rank)
    nodes = [Node(ids[bytes([value])], bytes([value])) for value in piece]
    for step in range(1, len(piece)):
        found = [(ranks.get((left.id, right.id), len(ranks)), at) for at, (left, right) in enumerate(pairwise(nodes))]
        rank, at = min(found, default=(len(ranks), 0))
        if rank == len(ranks):
            break
        left, right = nodes[at : at + 2]
        content = left.content + right.content
        nodes[at : at + 2] = [Node(ids[content], content, rank, step, left, right)]
    return nodes


def word_trees(tokenizer: BPETokenizer, text: str) -> list[list[Node]]:
    """The merge trees of the first different pieces of `text` that have anything to merge and are no whole page."""
    pieces = map(utf8, dict.fromkeys(cut(regex.compile(tokenizer.pattern), text)))
    words = [piece for piece in pieces if 1 < len(piece) <= LONGEST]
    return [merge_tree(tokenizer, word) for word in words[:TREES]]


def draw_words(name: str, trees: Sequence[Sequence[Node]], console: Console) -> Iterator[RenderableType]:
    """All trees under each other."""
    yield Text.assemble((name, "bold"), ("  how the first words were merged, step by step", "dim"))
    for roots in trees:
        yield ""
        yield from draw_tree(roots, console.width)


def draw_tree(roots: Sequence[Node], width: int = 80) -> list[Text]:
    """Bytes on top, a line for each merge with its number where the two meet, the tokens and their ids below."""
    leaves = [leaf for root in roots for leaf in root.leaves()]
    gap = max([GAP, *(len(str(root.id)) + 1 for root in roots if not root.left)])
    if gap * len(leaves) > width:
        word = "".join(_label(leaf.content) for leaf in leaves[:8])
        return [Text(f"{word}…: {len(leaves)} bytes are too wide to draw", "dim")]
    live: dict[int, Node] = {gap // 2 + gap * i: leaf for i, leaf in enumerate(leaves)}  # column → node
    lines = [_row({at: _label(leaf.content) for at, leaf in live.items()}, "bold")]
    for joint in sorted((joint for root in roots for joint in root.joints()), key=lambda joint: joint.step):
        assert joint.left and joint.right
        start, end = (next(at for at, node in live.items() if node is part) for part in (joint.left, joint.right))
        bar = f"{joint.step:─^{end - start - 1}}"
        lines.append(_row({at: "│" for at in live if at not in (start, end)} | {(start + end) // 2: f"└{bar}┘"}))
        del live[start], live[end]
        live[(start + end) // 2] = joint
        live = dict(sorted(live.items()))
        merged = f"{escaped(joint.left.content)} + {escaped(joint.right.content)}"
        note = f"{' ' * (gap * len(leaves) + 2 - lines[-1].cell_len)}{merged}  merge {(joint.rank or 0) + 1:,}"
        if lines[-1].cell_len + cell_len(note) <= width:
            lines[-1].append(note, "dim")
    lines.append(_row(dict.fromkeys(live, "│")))
    lines.append(_row({at: _label(root.content) for at, root in live.items()}, "bold"))
    return [*lines, _row({at: str(root.id) for at, root in live.items()}, "dim")]


def _label(content: bytes) -> str:
    """Of a byte that is no character its two digits alone, so that neighbours keep apart."""
    return escaped(content).replace("\\x", "")


def _row(labels: Mapping[int, str], style: str = "") -> Text:
    """Labels centred on their columns."""
    row = ""
    for at, label in sorted(labels.items()):
        row += " " * (at - (cell_len(label) - 1) // 2 - cell_len(row)) + label
    return Text(row, style, no_wrap=True)


# ---------------------------------------------------------------- kinds of text, side by side


class Row(NamedTuple):
    """What one tokenizer makes of one text."""

    text: str
    tokenizer: str
    bytes: int
    tokens: int
    bytes_per_token: float
    vocabulary_used: float  # share of the ordinary tokens that occur
    unknown: int


def measure(
    tokenizers: Mapping[str, Tokenizer], texts: Mapping[str, str], told: Callable[[int], None] = lambda characters: None
) -> list[Row]:
    """Each tokenizer on each text, and on all of them together. `told` hears how many characters each pass has read."""
    rows = []
    used: dict[str, set[int]] = {name: set() for name in tokenizers}
    totals = {name: [0, 0, 0] for name in tokenizers}  # bytes, tokens, unknown
    for label, text in texts.items():
        for name, tokenizer in tokenizers.items():
            (ids,) = tokenizer.encode_arrays([text])
            different = set(np.unique(ids).tolist())
            unknown = 0 if tokenizer.unknown_id is None else int((ids == tokenizer.unknown_id).sum())
            numbers = [len(text.encode()), len(ids), unknown]
            rows.append(_measured(label, name, numbers, different, tokenizer))
            told(len(text))
            used[name] |= different
            totals[name] = [total + number for total, number in zip(totals[name], numbers, strict=True)]
    everything = [_measured("all", name, totals[name], used[name], t) for name, t in tokenizers.items()]
    return [*rows, *everything]


def _measured(label: str, name: str, numbers: Sequence[int], used: set[int], tokenizer: Tokenizer) -> Row:
    size, tokens, unknown = numbers
    share = len(used - {tokenizer.unknown_id}) / max(1, len(tokenizer.ordinary_tokens()))
    return Row(label, name, size, tokens, round(size / max(1, tokens), 3), round(share, 4), unknown)


def report_tokenizers(options: TokenizerReport) -> Outcome:
    """`pellucid tokenizer report`."""
    texts = dict(SAMPLES)
    for path in options.text:
        texts[Path(path).name] = "\n".join(document.text for document in read_documents([path]))
    tokenizers: dict[str, Tokenizer] = {name: Tokenizer.load(name) for name in options.tokenizers}
    if "gpt2" not in tokenizers and (gpt2 := gpt2_if_at_hand()) is not None:
        tokenizers["gpt2"] = gpt2
    with progress_bar() as bar:
        total = len(tokenizers) * sum(map(len, texts.values()))
        task = bar.add_task("encoding with each", total=total, note="")
        rows = measure(tokenizers, texts, told=lambda characters: bar.advance(task, characters))
    about = [{"tokenizer": name, "kind": t.kind, "vocab_size": t.vocab_size} for name, t in tokenizers.items()]
    result = {"tokenizers": about, "texts": [row._asdict() for row in rows]}
    return result, render(draw_report(tokenizers, rows), Console(highlight=False, markup=False, emoji=False))


def _end(name: str) -> str:
    """The end of a long path."""
    return name if len(name) <= NAME else "…" + name[1 - NAME :]


def draw_report(tokenizers: Mapping[str, Tokenizer], rows: Sequence[Row]) -> list[RenderableType]:
    """A bar for each text and tokenizer, those of one text under each other."""
    longest = max(row.bytes_per_token for row in rows)
    colours = dict(zip(tokenizers, cycle(BAR_COLOURS)))
    any_unknown = any(row.unknown for row in rows)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("text", no_wrap=True)
    table.add_column("tokenizer", no_wrap=True)
    table.add_column("bytes a token", ratio=1)
    table.add_column("", justify="right")
    table.add_column("vocabulary used", justify="right")
    if any_unknown:
        table.add_column("unknown", justify="right")
    last = ""
    for row in rows:
        bar = Bar(longest, 0, row.bytes_per_token, color=colours[row.tokenizer])
        unknown = [f"{row.unknown / max(1, row.tokens):.1%}" if row.unknown else ""] if any_unknown else []
        numbers = [f"{row.bytes_per_token:.2f}", f"{row.vocabulary_used:.1%}", *unknown]
        if row.text != last and last and len(tokenizers) > 1:
            table.add_row()
        label = Text(row.text if row.text != last else "", "bold" if row.text == "all" else "")
        table.add_row(label, Text(_end(row.tokenizer)), bar, *numbers)
        last = row.text
    sizes = "   ".join(f"{_end(name)}: {t.kind}, {t.vocab_size:,} tokens" for name, t in tokenizers.items())
    return [table, "", Text(sizes, "dim")]
