"""The parts of a trace as a notebook shows them: plain lists, dictionaries and tuples that draw themselves, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pellucid.see.html import render
from pellucid.text.tokenizer import Piece

if TYPE_CHECKING:
    from pellucid.see.trace import NextWord, Trace


class Pieces(tuple[Piece, ...]):
    """The tokens of a text."""

    def _repr_html_(self) -> str:
        return shown("pieces", pieces=self)


class Words(list["NextWord"]):
    """Candidates for the next token, the likeliest first."""

    def _repr_html_(self) -> str:
        return shown("words", words=self)


class Lens(dict[str, list[list["NextWord"]]]):
    """What the model would say after each layer: name of the residual → for each position its candidates."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self.pieces = pieces

    def _repr_html_(self) -> str:
        return shown("lens", pieces=self.pieces, lens=self)


class Norms(dict[str, Tensor]):
    """Lengths of each token's vector: name of the value → (T,)."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self.pieces = pieces

    def _repr_html_(self) -> str:
        rows = {name: [round(float(value), 2) for value in values] for name, values in self.items()}
        return shown("norms", pieces=self.pieces, norms=rows)


@dataclass(frozen=True)
class Head:
    """One head of a trace: `weights` are (T, T)."""

    trace: Trace
    layer: int
    head: int

    @property
    def weights(self) -> Tensor:
        """Row: the token that looks; column: the one that is looked at."""
        return self.trace[f"blocks.{self.layer}.attention.weights"][self.head]

    def _repr_html_(self) -> str:
        from pellucid.see.pictures import head_picture  # which imports the trace

        return shown("head", head=self, drawn=head_picture(self.trace, self.layer, self.head))


def shown(part: str, **values: Any) -> str:
    """The part as HTML that stands by itself, in a notebook's own page."""
    return render("notebook.html", part=part, **values)
