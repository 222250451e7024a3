"""From the events of texts to what a client gets: whole choices, or chunks of a stream."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pellucid.generation.continuous import Event
from pellucid.text.tokenizer import StreamDecoder, Tokenizer

Json = dict[str, Any]
LEAST_LOGPROB = -9999.0  # for a probability of 0: JSON has no infinity
REASONS = {"": None, "stop token": "stop", "stop string": "stop", "max tokens": "length"}


@dataclass
class Text:
    """One text as its events come in."""

    index: int
    tokenizer: Tokenizer
    content: str = ""
    tokens: int = 0
    ended: str = ""
    noted: list[tuple[Event, int]] = field(default_factory=list)  # each token's event, and where its text begins
    decoded: int = 0  # characters of all tokens so far; the content lags behind where text is held back

    def __post_init__(self) -> None:
        self.stream: StreamDecoder = self.tokenizer.stream()

    def take(self, event: Event) -> list[tuple[Event, int]]:
        """Add a token; what is noted of it (nothing of the one that ends a text, which is no part of it)."""
        new = [] if event.ended == "stop token" else [(event, self.decoded)]
        self.tokens += len(new)
        self.noted += new
        self.decoded += len(self.stream.push(event.token)) if new else 0
        self.content += event.text
        self.ended = event.ended
        return new

    @property
    def finish_reason(self) -> str | None:
        """In OpenAI's words; None while it goes on."""
        return REASONS[self.ended]


@dataclass(frozen=True)
class Form:
    """A completion or a chat completion, whole or as a stream: what differs between them."""

    chat: bool
    model: str
    tokenizer: Tokenizer
    logprobs: bool
    identity: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, texts: Sequence[Text], prompt_tokens: int) -> Json:
        """The answer to a request that asks for no stream."""
        choices = []
        for text in texts:
            said: Json = {"text": text.content}
            if self.chat:
                said = {"message": {"role": "assistant", "content": text.content, "refusal": None}}
            choices.append(self._choice(text, said, text.noted))
        body = self._body("chat.completion" if self.chat else "text_completion", choices)
        return {**body, "usage": usage(prompt_tokens, texts)}

    def opening(self, text: Text) -> Json:
        """A chat's first chunk, which says who speaks."""
        return self._chunk(self._choice(text, {"delta": {"role": "assistant", "content": ""}}, []))

    def chunk(self, text: Text, event: Event) -> Json | None:
        """What one event adds; None where there is nothing to tell."""
        new = text.take(event)
        if not (event.text or event.ended or (self.logprobs and new)):
            return None
        said: Json = {"delta": {"content": event.text} if event.text else {}} if self.chat else {"text": event.text}
        return self._chunk(self._choice(text, said, new))

    def last(self, texts: Sequence[Text], prompt_tokens: int) -> Json:
        """The chunk that counts the tokens."""
        return {**self._chunk(None), "usage": usage(prompt_tokens, texts)}

    def _chunk(self, choice: Json | None) -> Json:
        return self._body("chat.completion.chunk" if self.chat else "text_completion", [choice] if choice else [])

    def _body(self, kind: str, choices: Sequence[Json]) -> Json:
        identity = f"{'chatcmpl' if self.chat else 'cmpl'}-{self.identity}"
        return {
            "id": identity, "object": kind, "created": self.created, "model": self.model, "choices": choices
        }  # fmt: skip

    def _choice(self, text: Text, said: Json, noted: Sequence[tuple[Event, int]]) -> Json:
        table = None
        if self.logprobs:
            table = self._chat_logprobs(noted) if self.chat else self._completion_logprobs(noted)
        return {"index": text.index, **said, "logprobs": table, "finish_reason": text.finish_reason}

    def _completion_logprobs(self, noted: Sequence[tuple[Event, int]]) -> Json:
        return {
            "tokens": [self._named(event.token) for event, _ in noted],
            "token_logprobs": [finite(event.logprob) for event, _ in noted],
            "top_logprobs": [{self._named(i): finite(p) for i, p in event.alternatives} for event, _ in noted],
            "text_offset": [offset for _, offset in noted],
        }

    def _chat_logprobs(self, noted: Sequence[tuple[Event, int]]) -> Json:
        content = [
            {**self._row(event.token, event.logprob), "top_logprobs": [self._row(i, p) for i, p in event.alternatives]}
            for event, _ in noted
        ]
        return {"content": content, "refusal": None}

    def _row(self, token: int, logprob: float | None) -> Json:
        written = self.tokenizer.token_bytes(token)
        return {"token": self._named(token), "logprob": finite(logprob), "bytes": list(written)}

    def _named(self, token: int) -> str:
        """A token's text; of a part of a character its bytes, so that two parts don't look alike."""
        written = self.tokenizer.token_bytes(token)
        try:
            return written.decode("utf-8")
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{value:02x}" for value in written)


def usage(prompt_tokens: int, texts: Sequence[Text]) -> Json:
    """Tokens read and made; one that only ends a text does not count."""
    made = sum(text.tokens for text in texts)
    return {"prompt_tokens": prompt_tokens, "completion_tokens": made, "total_tokens": prompt_tokens + made}


def finite(logprob: float | None) -> float:
    """A number that JSON can say."""
    return max(LEAST_LOGPROB, logprob) if logprob is not None else LEAST_LOGPROB


def line(chunk: Json | str) -> str:
    """A chunk as an event of the stream."""
    content = chunk if isinstance(chunk, str) else json.dumps(chunk, ensure_ascii=False, allow_nan=False)
    return f"data: {content}\n\n"
