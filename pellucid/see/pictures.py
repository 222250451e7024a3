"""Pictures as inline SVG: loss curves and attention, drawn by matplotlib, coloured by the page.

Differs from the usual `savefig` in one thing: colours are names of the page's style sheet, so that a picture is right
in light and in dark. Each chart is drawn twice, for wide and for narrow screens, and the style sheet shows one.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pellucid.see.html import visible
from pellucid.see.references import Band
from pellucid.see.trace import Trace

# A colour that matplotlib is given → the colour that the page sets in its place
THEME = {
    "#000001": "var(--ink)",
    "#000002": "var(--soft)",
    "#000003": "var(--line)",
    "#010000": "var(--blue)",
    "#020000": "var(--orange)",
    "#030000": "var(--green)",
    "#040000": "var(--purple)",
    "#050000": "var(--red)",
    "#060000": "var(--sky)",
}
INK, SOFT, LINE, *SERIES = THEME
BLUE = (0.16, 0.53, 0.78)  # of heat maps, whose strength is opacity: readable on light and on dark paper
SIZES = ((9.0, 4.0), (4.4, 3.9))  # inches, wide and narrow
SETTINGS = {
    "svg.fonttype": "none",
    "font.size": 10.5,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": LINE,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
}


@dataclass(frozen=True)
class Curve:
    """The losses of one run: (tokens seen, loss) of training batches and of evaluations."""

    name: str
    train: list[tuple[float, float]]
    val: list[tuple[float, float]]


@dataclass(frozen=True)
class Level:
    """A horizontal line to compare a loss with."""

    name: str
    loss: float


# ---------------------------------------------------------------- loss


def loss_picture(
    curves: Sequence[Curve], levels: Sequence[Level] = (), unit: str = "nats per token", band: Band | None = None
) -> Markup:
    """Training (thin) and held-out losses (strong) over tokens, beside the levels; empty when there is nothing.

    Under them the band, where the held-out losses of such a run are expected.
    """
    curves = [curve for curve in curves if curve.train or curve.val]
    if not curves:
        return Markup("")
    return _picture(
        "Loss over training tokens", lambda figure: _draw_losses(figure.subplots(), curves, levels, unit, band)
    )


def _draw_losses(
    axes: Axes, curves: Sequence[Curve], levels: Sequence[Level], unit: str, band: Band | None = None
) -> None:
    several = len(curves) > 1
    if band:
        axes.fill_between(band.tokens, band.low, band.high, color=SERIES[2], alpha=0.25, lw=0, label=band.name)
    for i, curve in enumerate(curves):
        colour = SERIES[i % len(SERIES)]
        if curve.train:
            x, y = zip(*_thinned(curve.train), strict=True)
            axes.plot(x, y, color=colour, lw=1, alpha=0.45, label=None if several else "training batches")
        if curve.val:
            x, y = zip(*curve.val, strict=True)
            style = ("-", "--", ":")[i // len(SERIES) % 3]
            name = curve.name if several else "held-out text"
            axes.plot(x, y, style, color=colour, lw=2, marker="o", ms=4, label=name)
    bottom, top = _window(curves, levels)
    axes.set_ylim(bottom, top)
    right = axes.get_xlim()[1]
    for i, level in enumerate(level for level in levels if bottom < level.loss < top):
        above = i % 2 == 0
        axes.axhline(level.loss, color=INK, lw=1, ls=(0, (4, 3)))
        text = f"{level.name} {level.loss:.3f}"
        axes.annotate(
            text, (right, level.loss), (0, 3 if above else -3), textcoords="offset points", ha="right",
            va="bottom" if above else "top", fontsize=9.5,
        )  # fmt: skip
    axes.xaxis.set_major_formatter(lambda value, _: _short(value))
    axes.set_xlabel("tokens")
    axes.set_ylabel(f"loss ({unit})")
    axes.grid(axis="y", lw=0.8)
    axes.legend(frameon=False, loc="upper right")


def _window(curves: Sequence[Curve], levels: Sequence[Level]) -> tuple[float, float]:
    """The losses to show: the very high ones of the first steps would press the rest flat."""
    everything = [loss for curve in curves for _, loss in (*curve.val, *curve.train)]
    late = [loss for curve in curves for points in (curve.val, curve.train) for _, loss in points[len(points) // 8 :]]
    shown = [*late, *(level.loss for level in levels)]
    low, high = min(shown), min(max(shown), max(everything + [level.loss for level in levels]))
    room = 0.12 * (high - low) or 0.1
    return low - room, high + 2 * room


def _thinned(points: list[tuple[float, float]], most: int = 300) -> list[tuple[float, float]]:
    """At most about `most` points: the means of neighbours."""
    width = -(-len(points) // most)
    parts = (np.array(points[start : start + width]) for start in range(0, len(points), width))
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts]


def _short(value: float) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"


# ---------------------------------------------------------------- attention


def informative_head(picture: Trace) -> tuple[int, int]:
    """The layer and head that look most sharply at something else than the start, themselves or the token before.

    Those three are what almost every model has, and they tell little about the text.
    """
    weights = picture.attention().double()  # (L, H, T, T)
    length = weights.shape[-1]
    rows, columns = np.indices((length, length))
    elsewhere = (columns > 0) & (columns < rows - 1)
    sharpest = np.where(elsewhere, weights.numpy(), 0.0).max(axis=-1).mean(axis=-1)  # (L, H)
    layer, head = np.unravel_index(int(sharpest.argmax()), sharpest.shape)
    return int(layer), int(head)


def head_picture(picture: Trace, layer: int, head: int) -> Markup:
    """One head's weights, large, with the tokens on both sides."""
    weights = picture[f"blocks.{layer}.attention.weights"][head].numpy()
    names = [_cut(visible(piece.text)) for piece in picture.tokens]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _heat(axes, weights)
        size = max(5.0, min(9.5, 260 / len(names)))
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size, family="monospace", color=INK)
        axes.set_yticks(range(len(names)), names, fontsize=size, family="monospace", color=INK)
        axes.xaxis.tick_top()

    label = f"Attention weights of layer {layer + 1}, head {head + 1}"
    return _picture(label, draw, sizes=((6.4, 6.4), (4.6, 4.6)))


def heads_picture(picture: Trace) -> Markup:
    """All heads of all layers, small: layers from top to bottom."""
    weights = picture.attention().numpy()
    layers, heads = weights.shape[:2]

    def draw(figure: Figure) -> None:
        grid = figure.subplots(layers, heads, squeeze=False)
        for layer in range(layers):
            for head in range(heads):
                axes = grid[layer][head]
                _heat(axes, weights[layer, head])
                axes.set_xticks([])
                axes.set_yticks([])
                axes.set_title(f"{layer + 1}.{head + 1}", fontsize=8, color=SOFT, pad=3)

    side = max(0.55, min(1.7, 6.4 / heads))
    return _picture("Attention weights of all heads", draw, sizes=((side * heads, (side + 0.12) * layers),))


def _heat(axes: Axes, weights: NDArray[np.float32]) -> None:
    """Weights as opacity; nothing where a token would look ahead."""
    pixels = np.empty((*weights.shape, 4), dtype=np.float64)
    pixels[..., :3] = BLUE
    pixels[..., 3] = np.where(np.tri(len(weights), dtype=bool), 0.06 + 0.94 * np.sqrt(weights), 0.0)
    axes.imshow(pixels, interpolation="none")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _cut(name: str, longest: int = 12) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


# ---------------------------------------------------------------- matplotlib → the page


def _picture(label: str, draw: Callable[[Figure], None], sizes: Sequence[tuple[float, float]] = SIZES) -> Markup:
    """The drawing once for each size: the first for wide screens, the second (if any) for narrow ones."""
    drawn = [_svg(label, draw, size) for size in sizes]
    if len(drawn) == 1:
        return Markup('<div style="max-width: {}rem">{}</div>').format(round(sizes[0][0] * 4.6, 1), drawn[0])
    wide = Markup('<div class="wide" style="max-width: {}rem">{}</div>').format(round(sizes[0][0] * 6.6, 1), drawn[0])
    return wide + Markup('<div class="narrow">{}</div>').format(drawn[1])


def _svg(label: str, draw: Callable[[Figure], None], size: tuple[float, float]) -> Markup:
    settings: Any = {**SETTINGS, "svg.hashsalt": f"{label} {size}"}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has other fonts
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        file = io.StringIO()
        nothing: dict[str, Any] = {"Creator": None, "Date": None, "Format": None, "Type": None}
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<g) id="[^"]*"', r"\1", svg)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"font-family: 'DejaVu Sans Mono'[^;\"]*", "font-family: var(--mono)", svg)
    svg = re.sub(r"font-family: '[^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r"(?<=: )#0[0-6]000[0-3]", lambda match: THEME.get(match.group(), match.group()), svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    return Markup(svg)
