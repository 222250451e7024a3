"""Every named intermediate value of one real forward pass, observed from outside.

Forward hooks note what goes into and comes out of the model's modules; `forward` knows nothing of it, and the hooks are
gone when `trace` returns. Only the scores and weights of the attention, which the fused kernel never shows, are
computed again, by the model's own functions on the vectors that were noted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pellucid.generation.sampling import Sampling, next_token
from pellucid.model.attention import (
    CausalAttention,
    attention_scores,
    attention_weights,
    causal_mask,
    for_each_query,
)
from pellucid.model.gpt import GPT
from pellucid.runtime import DataError, problem
from pellucid.see.notebook import Head, Lens, Norms, Pieces, Words, shown
from pellucid.text.tokenizer import Piece, Tokenizer

# T tokens, D width of the model, H heads, G heads of keys and values (H, or fewer in llama), K width of a head,
# F width of the feed-forward, V vocabulary, L layers

DIGITS = 6  # decimals of the numbers that a page gets
Heads = tuple[Tensor, Tensor, Tensor]  # queries, keys, values, each (H, T, K)


class Point(NamedTuple):
    """Where a value is noted: at a module's input or output. A model without that module has no such value."""

    name: str
    module: str
    side: Literal["input", "output"]


MODEL_POINTS = (
    Point("token_embedding", "token_embedding", "output"),  # (T, D)
    Point("position_embedding", "position_embedding", "output"),  # (T, D); rotary positions have no vector
    Point("input", "dropout", "input"),  # (T, D) token vector + position vector
    Point("final_norm", "final_norm", "output"),  # (T, D)
    Point("logits", "", "output"),  # (T, V)
)
BLOCK_POINTS = (  # each under "blocks.<layer>."; the values of the heads are (H or G, T, K), the others (T, D)
    Point("residual_in", "", "input"),
    Point("attention_norm", "attention_norm", "output"),
    Point("attention.query", "attention.query", "output"),  # before llama norms and rotates it
    Point("attention.key", "attention.key", "output"),
    Point("attention.value", "attention.value", "output"),
    Point("attention.context", "attention.output", "input"),
    Point("attention.output", "attention.output", "output"),
    Point("residual_mid", "feed_forward_norm", "input"),
    Point("feed_forward_norm", "feed_forward_norm", "output"),
    Point("feed_forward.gate", "feed_forward.gate", "output"),  # (T, F), llama's, before SiLU
    Point("feed_forward.expanded", "feed_forward.expand", "output"),  # (T, F), before GELU or the gate
    Point("feed_forward.hidden", "feed_forward.contract", "input"),  # (T, F), after it
    Point("feed_forward.output", "feed_forward", "output"),
    Point("residual_out", "", "output"),
)
BY_HEADS = ("attention.query", "attention.key", "attention.value", "attention.context")


class NextWord(NamedTuple):
    """One candidate for the next token."""

    id: int
    text: str
    logit: float
    probability: float


@dataclass(frozen=True)
class Trace:
    """What one forward pass computed: `values["blocks.0.attention.weights"]` is (H, T, T), and so on, in float32.

    `tokens` holds the pieces of the text, end-of-text first; `note` says what was cut away, if anything was.
    """

    text: str
    tokens: Pieces
    values: dict[str, Tensor]
    note: str = ""
    model: GPT = field(repr=False, compare=False, kw_only=True)
    tokenizer: Tokenizer = field(repr=False, compare=False, kw_only=True)
    _heads: list[Heads] = field(repr=False, compare=False, kw_only=True)

    def __getitem__(self, name: str) -> Tensor:
        """The value of that name; KeyError lists the names when there is none."""
        if name not in self.values:
            raise KeyError(f"{name!r}; known: {', '.join(self.values)}")
        return self.values[name]

    def next_words(self, k: int = 10, position: int = -1) -> Words:
        """The `k` likeliest tokens to follow the token at `position`, of all V: nothing is renormalised."""
        return Words(self._likeliest(self.values["logits"][position], k)[0])

    def logit_lens(self, k: int = 1) -> Lens:
        """What the model would say had it ended earlier: the final norm and the logits on each layer's residual stream.

        Name of the residual → for each position the `k` likeliest tokens. The last row is the model's own answer.
        Reads the model's weights as they are now. (nostalgebraist 2020, "interpreting GPT: the logit lens".)
        """
        lens = Lens(self.tokens)
        for name in ("input", *(f"blocks.{layer}.residual_out" for layer in range(self.model.config.n_layers))):
            lens[name] = self.words_after(self.values[name], k)
        return lens

    def words_after(self, stream: Tensor, k: int = 1) -> list[list[NextWord]]:
        """For each residual vector (N, D) the `k` likeliest tokens had the model ended with it."""
        with torch.no_grad():
            residual = stream.to(self.model.token_embedding.weight)
            normed = self.model.final_norm.forward(residual)  # not called: another thread's hooks must not see it
            logits = self.model.logits(normed).float().cpu()
        return self._likeliest(logits, k)

    def heads(self, layer: int) -> Heads:
        """Queries, keys and values of a layer as its scores took them, (H, T, K): normed and turned as llama does."""
        return self._heads[layer]

    def norms(self) -> Norms:
        """Length of each token's vector, (T,), in the residual stream and of what each part adds to it."""
        parts = ("attention.output", "residual_mid", "feed_forward.output", "residual_out")
        layers = range(self.model.config.n_layers)
        names = ["input", *(f"blocks.{layer}.{part}" for layer in layers for part in parts)]
        norms = Norms(self.tokens)
        norms.update({name: self.values[name].norm(dim=-1) for name in names})
        return norms

    def head(self, layer: int, head: int) -> Head:
        """One head, both counted from 0: its `weights`, and in a notebook their picture."""
        return Head(self, layer, head)

    def attention(self) -> Tensor:
        """The attention weights of all layers and heads, (L, H, T, T)."""
        layers = range(self.model.config.n_layers)
        return torch.stack([self.values[f"blocks.{layer}.attention.weights"] for layer in layers])

    def to_json(self, k: int = 10) -> dict[str, Any]:
        """Plain data for a page: tokens, vectors, attention, norms, lens and next words, numbers to six decimals."""
        positions = range(len(self.tokens))
        encoding = [name for name in ("token_embedding", "position_embedding", "input") if name in self.values]
        return {
            "text": self.text,
            "note": self.note,
            "layers": self.model.config.n_layers,
            "heads": self.model.config.n_heads,
            "tokens": [piece._asdict() for piece in self.tokens],
            "input": {name: rounded(self.values[name]) for name in encoding},
            "attention": rounded(self.attention()),
            "norms": {name: rounded(norm) for name, norm in self.norms().items()},
            "lens": {name: [plain_word(words[0]) for words in row] for name, row in self.logit_lens().items()},
            "next": [[plain_word(word) for word in self.next_words(k, position)] for position in positions],
        }

    def _repr_html_(self) -> str:
        """How a notebook shows it: the tokens and the next words."""
        words = self.next_words(5)
        return shown("trace", pieces=self.tokens, words=words, note=self.note, count=len(self.values))

    def _likeliest(self, logits: Tensor, k: int) -> list[list[NextWord]]:
        """(T, V) or (V,) → for each row its `k` likeliest tokens."""
        logits = logits if logits.dim() == 2 else logits[None]
        k = min(k, logits.shape[-1])
        columns = next_token(logits, Sampling(temperature=1.0))
        best = columns.probability.topk(k, dim=1)
        rows = zip(best.indices.tolist(), best.values.tolist(), logits.gather(1, best.indices).tolist(), strict=True)
        return [
            [NextWord(i, token_text(self.tokenizer, i), logit, p) for i, p, logit in zip(ids, ps, ls, strict=True)]
            for ids, ps, ls in rows
        ]


def trace(
    model: GPT,
    tokenizer: Tokenizer,
    text: str,
    max_tokens: int | None = None,
    *,
    more: Sequence[int] = (),
    without: Collection[tuple[int, int]] = (),
) -> Trace:
    """Run `model` once on end-of-text + `text` and keep every value of BLOCK_POINTS and MODEL_POINTS.

    `more` are ids that stand behind the text; the (layer, head) of `without` add nothing: their context is zero.
    Text past the context (or past `max_tokens`, where that is less) is cut away at the end, and `note` says so.
    DataError where the tokenizer has no end-of-text, or has ids that the model has not, and for unknown heads.
    """
    pieces, note = _pieces(model, tokenizer, text, max_tokens, more)
    ids = torch.tensor([[piece.id for piece in pieces]], device=model.device)
    values: dict[str, Tensor] = {}
    was_training = model.training
    model.eval()
    try:
        with switched_off(model, without), observed(model, values), torch.no_grad():
            model(ids)
    finally:
        model.train(was_training)
    with torch.no_grad():
        heads = [_heads_of(model, ids, values, layer) for layer in range(model.config.n_layers)]
    _add_scores(model, heads, values)
    return Trace(text, pieces, values, note, model=model, tokenizer=tokenizer, _heads=heads)


def _add_scores(model: GPT, heads: list[Heads], values: dict[str, Tensor]) -> None:
    """Scores and weights of each layer, (H, T, T), from its queries and keys."""
    for layer, (q, k, _) in enumerate(heads):
        at, mask = f"blocks.{layer}.attention", causal_mask(q.shape[1], window=model.config.window)
        values[f"{at}.scores"] = attention_scores(q, k)
        values[f"{at}.weights"] = attention_weights(q, k, mask)


def _heads_of(model: GPT, ids: Tensor, values: dict[str, Tensor], layer: int) -> Heads:
    """What `Trace.heads` says, from the vectors that were noted."""
    x, rotation = model.position_embedding.encode(model.token_embedding(ids), model.positions(ids))
    attention = model.get_submodule(f"blocks.{layer}.attention")
    assert isinstance(attention, CausalAttention)
    q, k, v = attention.queries_keys_values(values[f"blocks.{layer}.attention_norm"][None].to(x), rotation)
    k, v = for_each_query(k, q), for_each_query(v, q)
    return q[0].float().cpu(), k[0].float().cpu(), v[0].float().cpu()


@contextmanager
def switched_off(model: GPT, heads: Collection[tuple[int, int]]) -> Iterator[None]:
    """Within the block these (layer, head) give no context: zeros go on in their place. DataError for unknown ones."""
    config = model.config
    for layer, head in heads:
        if not (0 <= layer < config.n_layers and 0 <= head < config.n_heads):
            expected = f"layers below {config.n_layers} and heads below {config.n_heads}, counted from 0"
            raise DataError(problem("trace", f"the head {layer}.{head}", expected, "Name another."))
    with ExitStack() as hooks:
        for layer, head in heads:

            def silence(_module: nn.Module, inputs: tuple[Tensor], head: int = head) -> tuple[Tensor]:
                context = inputs[0].clone()
                context[..., head * config.d_head : (head + 1) * config.d_head] = 0
                return (context,)

            output = model.get_submodule(f"blocks.{layer}.attention.output")
            hooks.callback(output.register_forward_pre_hook(silence).remove)
        yield


@contextmanager
def observed(model: GPT, values: dict[str, Tensor]) -> Iterator[None]:
    """Within the block each forward pass of `model` (one row) fills `values`, by name, in the order of the data."""
    width = model.config.d_head
    with ExitStack() as hooks:
        for point in MODEL_POINTS:
            _hook(hooks, model, point, partial(_note, values, point.name, None))
        for layer, block in enumerate(model.blocks):
            for point in BLOCK_POINTS:
                note = partial(_note, values, f"blocks.{layer}.{point.name}", width if point.name in BY_HEADS else None)
                _hook(hooks, block, point, note)
        yield


def _hook(hooks: ExitStack, root: nn.Module, point: Point, note: Callable[[Any], None]) -> None:
    """Have `note` called with the point's value at each pass, until `hooks` closes."""
    module = dict(root.named_modules()).get(point.module)
    if module is None:
        return
    if point.side == "input":
        handle = module.register_forward_pre_hook(lambda _module, inputs: note(inputs[0]))
    else:
        handle = module.register_forward_hook(lambda _module, _inputs, output: note(output))
    hooks.callback(handle.remove)


def _note(values: dict[str, Tensor], name: str, width: int | None, value: Any) -> None:
    """Keep a copy without the row's dimension, cut into heads, (H or G, T, K), where their `width` is given."""
    if not isinstance(value, Tensor):  # a rotation
        return
    kept = value.detach().float().cpu().clone()
    kept = kept[0] if kept.dim() == 3 else kept
    values[name] = kept if width is None else kept.view(len(kept), -1, width).transpose(0, 1)


def _pieces(
    model: GPT, tokenizer: Tokenizer, text: str, max_tokens: int | None, more: Sequence[int] = ()
) -> tuple[Pieces, str]:
    """End-of-text, the pieces of `text` and those of `more`, as far as they fit, and a sentence about the rest."""
    name = tokenizer.end_of_text_name
    pieces = [Piece(tokenizer.end_of_text, name, 0, 0), *tokenizer.pieces(text)]
    for token in more:
        end = pieces[-1].end
        pieces.append(Piece(token, token_text(tokenizer, token), end, end + len(tokenizer.token_bytes(token))))
    room = min(model.config.context_length, max_tokens or model.config.context_length)
    note = ""
    if len(pieces) > room:
        note = f"The text has {len(pieces) - 1:,} tokens; only the first {room - 1:,} are shown."
        pieces = pieces[:room]
    largest = max(piece.id for piece in pieces)
    if largest >= model.config.vocab_size:
        expected = f"ids below {model.config.vocab_size:,}, the model's vocabulary"
        raise DataError(problem("trace", f"the token id {largest:,}", expected, "Give the tokenizer of this model."))
    return Pieces(pieces), note


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """The text of one id; a model may have more logits than its tokenizer has tokens (rounded-up vocabularies)."""
    if token >= tokenizer.vocab_size:
        return f"[{token}]"
    return tokenizer.token_bytes(token).decode("utf-8", errors="replace")


def rounded(values: Tensor) -> Any:
    """Nested lists of numbers with DIGITS decimals."""
    return np.round(values.detach().double().numpy(), DIGITS).tolist()


def plain_word(word: NextWord) -> dict[str, Any]:
    """A candidate as a page gets it."""
    return {**word._asdict(), "logit": round(word.logit, DIGITS), "probability": round(word.probability, DIGITS)}
