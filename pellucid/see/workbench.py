"""The workbench as routes of a server: eight pages, the data behind them, their files, and the package's source.

The pages are frames; their scripts ask for data and draw it. What a client sends is looked up, parsed or refused here,
so that the views behind get names, numbers and texts of a sane length.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from pellucid.generation.sampling import Sampling
from pellucid.opened import Runs
from pellucid.runtime import ConfigError, DataError, PellucidError, problem, shown
from pellucid.see.html import WEB, environment
from pellucid.see.shelf import Shelf
from pellucid.see.source import code, places
from pellucid.see.trace import Trace
from pellucid.see.views.assistant import examples, mask
from pellucid.see.views.attention import attention, heads
from pellucid.see.views.block import block
from pellucid.see.views.classifier import moved, results
from pellucid.see.views.embeddings import embeddings, neighbours, positions, vocabulary
from pellucid.see.views.next_word import lens, next_word, read_heads, read_ids
from pellucid.see.views.tokens import tokens, tree
from pellucid.see.views.training import training

KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
SMALL = 256 * 2**20  # bytes of a model that is opened before anybody asks
LONGEST = 4000  # characters of a text that is looked at
LARGE = 10**12  # numbers are smaller: dice take a seed of 64 bits
SENTENCE = "The red fox has a lamp, and the lamp is red."


class Page(NamedTuple):
    """A stop of the tour: its address, its name, and what is seen there."""

    address: str
    title: str
    about: str


PAGES = (
    Page(
        "tokens",
        "Tokens",
        "A model reads numbers, so a text is first cut into pieces that each have a number. Words and characters are "
        "the obvious ways to cut; byte pairs lie between, and were learnt by joining what often stood together.",
    ),
    Page(
        "embeddings",
        "Embeddings",
        "Each token has a vector that was learnt, and so has each position; their sum is all that the first layer gets "
        "to see. Tokens that are used alike come to lie near each other.",
    ),
    Page(
        "attention",
        "Attention",
        "Each token asks (query), every token before it offers (key), and how well the two fit decides how much of its "
        "value is taken. Here are all the numbers on that way, for one head.",
    ),
    Page(
        "block",
        "Block",
        "A stream of vectors runs through the model. Each block normalises a copy of it, lets attention and a "
        "feed-forward work on that copy, and adds what they found back to the stream.",
    ),
    Page(
        "next-word",
        "Next word",
        "At the end every token of the vocabulary gets a logit. Temperature, top-k and top-p turn logits into the "
        "probabilities from which the next word is drawn: move the sliders, take a word, step back.",
    ),
    Page(
        "training",
        "Training",
        "The loss is how surprised the model is by the next token, and training makes it fall. A run that trains now, "
        "in another process, is drawn as it goes.",
    ),
    Page(
        "classifier",
        "Classifier",
        "A small layer on the last vector tells classes of text apart. From which probability on it says so is a "
        "choice: move the threshold, and see what it costs and what it finds.",
    ),
    Page(
        "assistant",
        "Assistant",
        "The same model, taught to answer: only the words of the assistant were trained, never the question. Talk to "
        "it, and click a word of its answer to see what else it might have said.",
    ),
)


class Question:
    """What a page asks for, out of its URL."""

    def __init__(self, shelf: Shelf, asked: QueryParams) -> None:
        self.shelf, self.asked = shelf, asked
        self.model = asked.get("model") or next(iter(shelf.runs))
        self.checkpoint = asked.get("checkpoint", "")
        self.folder = shelf.folder(self.model)
        self.text = self.words("text") if "text" in asked else SENTENCE

    def words(self, name: str) -> str:
        """A text. DataError where it is too long to be looked at."""
        text = self.asked.get(name, "")
        if len(text) > LONGEST:
            found, advice = f"{len(text):,} characters", "Look at a part of it."
            raise DataError(problem(name, found, f"at most {LONGEST:,}", advice))
        return text.encode("utf-8", "replace").decode()  # lone surrogates have no bytes

    def number(self, name: str, default: float = 0) -> float:
        """A number. ConfigError where it is none."""
        value = self.asked.get(name, "")
        try:
            return float(value) if value else default
        except ValueError as error:
            raise ConfigError(problem(name, repr(shown(value)), "a number", "Change it.")) from error

    def whole(self, name: str, default: int = 0) -> int:
        """A whole number. ConfigError where it is none."""
        value = self.asked.get(name, "")
        try:
            number = int(value) if value else default
            if abs(number) >= LARGE:
                raise ValueError(name)
            return number
        except ValueError as error:
            expected = f"a whole number of less than {len(str(LARGE))} digits"
            raise ConfigError(problem(name, repr(shown(value)), expected, "Change it.")) from error

    def listed(self, name: str, read: Callable[[str], Any]) -> Any:
        """What `read` makes of a list such as 3,17. ConfigError where it is none."""
        value = self.asked.get(name, "")
        try:
            return read(value)
        except ValueError as error:
            raise ConfigError(problem(name, repr(shown(value)), "numbers and commas", "Change it.")) from error

    def trace(self, whole: bool = False) -> Trace:
        """The trace of the text, with the words that were added; `whole` leaves all heads on."""
        off = [] if whole else self.listed("off", read_heads)
        return self.shelf.trace(self.model, self.checkpoint, self.text, self.listed("more", read_ids), off)


# ---------------------------------------------------------------- data


def about(asked: Question) -> dict[str, Any]:
    """Which models there are, of which kinds; the chosen one's shape, checkpoints and tokens of the text."""
    shelf = asked.shelf
    picture = asked.trace(whole=True)
    config = picture.model.config
    return {
        "model": asked.model,
        "kind": shelf.kind(asked.model),
        "models": [{"name": name, "kind": shelf.kind(name)} for name in shelf.runs],
        "checkpoints": shelf.checkpoints(asked.model),
        "layers": config.n_layers,
        "heads": config.n_heads,
        "d_model": config.d_model,
        "parameters": picture.model.parameter_count(),
        "family": config.family,
        "text": picture.text,
        "tokens": [piece._asdict() for piece in picture.tokens],
        "note": picture.note,
    }


def ask_next_word(asked: Question) -> dict[str, Any]:
    """The page Next word; temperature 1 keeps the model's own probabilities."""
    sampling = Sampling(asked.number("temperature", 1), asked.whole("top_k"), asked.number("top_p", 1))
    picture, whole = asked.trace(), asked.trace(whole=True)
    return next_word(picture, whole, sampling, asked.whole("seed"))


DATA: dict[str, Callable[[Question], dict[str, Any]]] = {
    "about": about,
    "tokens": lambda asked: tokens(asked.shelf, asked.model, asked.text),
    "tree": lambda asked: tree(asked.shelf, asked.model, asked.asked.get("way", ""), asked.asked.get("piece", "")),
    "embeddings": lambda asked: embeddings(asked.trace()),
    "vocabulary": lambda asked: vocabulary(asked.shelf, asked.model, asked.checkpoint),
    "neighbours": lambda asked: neighbours(asked.shelf.open(asked.model, asked.checkpoint), asked.whole("token")),
    "positions": lambda asked: positions(asked.shelf.open(asked.model, asked.checkpoint)),
    "attention": lambda asked: attention(
        asked.trace(), asked.whole("layer"), asked.whole("head"), asked.number("dropout"), asked.whole("seed")
    ),
    "heads": lambda asked: heads(asked.trace()),
    "block": lambda asked: block(asked.trace(), asked.whole("layer"), asked.whole("token")),
    "next-word": ask_next_word,
    "lens": lambda asked: lens(asked.trace()),
    "training": lambda asked: training(asked.shelf, asked.model, asked.asked.get("known", "")),
    "classifier": lambda asked: results(asked.folder),
    "moved": lambda asked: moved(asked.shelf.open(asked.model, asked.checkpoint), asked.words("message")),
    "examples": lambda asked: examples(asked.shelf, asked.model, asked.whole("number")),
    "mask": lambda asked: mask(
        asked.shelf.open(asked.model), asked.words("instruction"), asked.words("input"), asked.words("output")
    ),
}


# ---------------------------------------------------------------- routes


def routes(runs: Runs) -> Sequence[BaseRoute]:
    """All routes of the workbench over these runs; PellucidErrors are for the server to answer."""
    shelf = Shelf(runs)
    warm(shelf)

    async def home(request: Request) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"/{PAGES[0].address}{query}")

    async def page(request: Request) -> Response:
        return HTMLResponse(frame(next(page for page in PAGES if f"/{page.address}" == request.url.path)))

    async def data(request: Request) -> Response:
        view = DATA.get(request.path_params["view"])
        if view is None:
            raise HTTPException(404, "there is no such view.")
        return JSONResponse(await runs.aside(lambda: view(Question(shelf, request.query_params))))

    return [
        Route("/", home),
        *(Route(f"/{one.address}", page) for one in PAGES),
        Route("/data/{view}", data),
        Route("/web/{name}", file),
        Route("/code/{file:path}", source),
    ]


def warm(shelf: Shelf) -> None:
    """Look at the first run before anybody asks, where it is small: what torch loads late is loaded by then.

    Not in a thread of its own: one that is cut off inside torch, by Ctrl-C right after the start, ends the process.
    """
    with contextlib.suppress(PellucidError, OSError):  # whoever asks for it is told
        first = next(iter(shelf.runs.values()))
        if (first / "model.safetensors").stat().st_size <= SMALL:
            about(Question(shelf, QueryParams()))


def frame(page: Page) -> str:
    """The HTML of a page: everything around what its script draws."""
    place = PAGES.index(page)
    return (
        environment()
        .get_template("workbench.html")
        .render(
            page=page,
            number=place + 1,
            pages=PAGES,
            places=places(page.address),
            modules=modules(f"{page.address}.js"),
            next=PAGES[(place + 1) % len(PAGES)],
        )
    )


@cache
def modules(script: str) -> list[str]:
    """What a script imports, and what that imports: asked for at once, not each when the one before has come."""
    direct = re.findall(
        r'^import .* from "\./([\w-]+\.js)";$', (WEB / script).read_text(encoding="utf-8"), re.MULTILINE
    )
    return sorted({*direct, *(name for one in direct for name in modules(one))})


async def file(request: Request) -> Response:
    """A script or a style sheet of the workbench: one of those that lie there, by name."""
    found = {path.name: path for path in [*WEB.iterdir(), WEB.parent / "templates" / "style.css"]}
    path = found.get(request.path_params["name"])
    if path is None or path.suffix not in KINDS:
        return Response("There is no such file.", 404, media_type="text/plain")
    return Response(path.read_text(encoding="utf-8"), media_type=KINDS[path.suffix])


async def source(request: Request) -> Response:
    """A source file of the package as a page of numbered lines."""
    try:
        lines = code(request.path_params["file"])
    except PellucidError:
        return Response("There is no such file.", 404, media_type="text/plain")
    asked = re.fullmatch(r"(\d{1,6})-(\d{1,6})", request.query_params.get("lines", ""))
    marked = range(int(asked[1]), int(asked[2]) + 1) if asked else range(0)
    text = environment().get_template("code.html").render(file=request.path_params["file"], lines=lines, marked=marked)
    return HTMLResponse(text)
