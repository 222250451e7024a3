"""`/v1/completions` and `/v1/chat/completions`: a request becomes wishes, the engine's events become its answer."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from pellucid.assistant.server.answers import Form, Text, line
from pellucid.assistant.server.engine import Engine, Ticket, Wish
from pellucid.assistant.server.errors import RefusedError, described, of_error
from pellucid.assistant.server.metrics import Meter
from pellucid.assistant.server.models import OpenModels
from pellucid.assistant.server.protocol import (
    MOST_TEXTS,
    ChatCompletion,
    ChatRequest,
    Completion,
    CompletionRequest,
    Wanted,
)
from pellucid.finetune.conversation import Conversation, Message
from pellucid.generation.engine import prompt_ids
from pellucid.runtime import PellucidError, problem

MAX_TOKENS = 16  # of a completion that does not say how many, as OpenAI's
LONG = 2000  # characters; longer prompts are encoded off the event loop


def routes(models: OpenModels, meter: Meter) -> APIRouter:
    """The two routes."""
    router = APIRouter()
    writing = Writing(models, meter)

    @router.post("/v1/completions", response_model=None, responses=described(Completion, stream=True))
    async def completions(request: CompletionRequest) -> Response:
        """Continue texts."""
        engine = await models.engine(request.model, ("language model", "assistant"))
        prompts = [await writing.ids(engine, prompt) for prompt in request.prompts()]
        for ids in prompts:
            check_length(len(ids), engine, "prompt")
        most = request.max_tokens or MAX_TOKENS
        alternatives = request.logprobs
        return await writing.answer(request, engine, prompts, most, alternatives, chat=False)

    @router.post("/v1/chat/completions", response_model=None, responses=described(ChatCompletion, stream=True))
    async def chat_completions(request: ChatRequest) -> Response:
        """Answer the last turn of a talk."""
        engine = await models.engine(request.model, ("assistant",))
        turns = [Message("system" if turn.role == "developer" else turn.role, turn.text()) for turn in request.messages]
        ids = await writing.talk_ids(engine, turns)
        check_length(len(ids), engine, "messages")
        left = max(1, engine.model.config.context_length - len(ids))  # beyond, the question would be forgotten
        most = min(request.max_completion_tokens or request.max_tokens or left, left)
        alternatives = (request.top_logprobs or 0) if request.logprobs else None
        return await writing.answer(request, engine, [ids], most, alternatives, chat=True)

    return router


class Writing:
    """What both routes do."""

    def __init__(self, models: OpenModels, meter: Meter) -> None:
        self.models, self.meter = models, meter

    async def ids(self, engine: Engine, prompt: str | list[int]) -> list[int]:
        """The ids of a text to continue; given ones are taken as they are."""
        if isinstance(prompt, list):
            vocabulary, largest = engine.model.config.vocab_size, max(prompt)
            if largest >= vocabulary:
                message = problem("prompt", f"the id {largest}", f"ids below {vocabulary:,}", "Use its own tokenizer.")
                raise RefusedError(message, code="unknown_token", param="prompt")
            return prompt
        if len(prompt) < LONG:
            return prompt_ids(engine.tokenizer, prompt)
        return await self.models.runs.aside(prompt_ids, engine.tokenizer, prompt)

    async def talk_ids(self, engine: Engine, turns: Sequence[Message]) -> list[int]:
        """The ids of a talk, up to where the assistant is to speak."""
        talk = Conversation(tuple(turns))
        if sum(len(turn.content) for turn in turns) < LONG:
            return talk.prompt(engine.tokenizer)
        return await self.models.runs.aside(talk.prompt, engine.tokenizer)

    async def answer(
        self,
        request: Wanted,
        engine: Engine,
        prompts: Sequence[Sequence[int]],
        max_tokens: int,
        alternatives: int | None,
        chat: bool,
    ) -> Response:
        """Let the texts be made; the answer, or the beginning of the stream."""
        times = request.n or 1
        if times * len(prompts) > MOST_TEXTS:
            found = f"{len(prompts)} prompts × n {times}"
            message = problem("n", found, f"{MOST_TEXTS} texts at most", "Ask twice.")
            raise RefusedError(message, code="too_many_texts", param="n")
        seed = secrets.randbits(63) if request.seed is None else request.seed
        wishes = [
            Wish(prompt, max_tokens, request.sampling(), seed, request.stops(), alternatives, row)
            for prompt in prompts
            for row in range(times)
        ]
        form = Form(chat, request.model, engine.tokenizer, alternatives is not None)
        texts = [Text(index, engine.tokenizer) for index in range(len(wishes))]
        read = sum(map(len, prompts))
        ticket = engine.order(wishes, at_once=bool(request.stream))
        try:
            await ticket.begun()
            if request.stream:
                pieces = self.stream(ticket, form, texts, read, request.with_usage())
                return EventStream(ticket, pieces)
            async for place, event in ticket.events():
                texts[place].take(event)
        except BaseException:
            ticket.cancel()
            raise
        self.meter.count_tokens(request.model, read, sum(text.tokens for text in texts))
        return JSONResponse(form.whole(texts, read))

    async def stream(
        self, ticket: Ticket, form: Form, texts: Sequence[Text], read: int, with_usage: bool
    ) -> AsyncIterator[str]:
        """The chunks of a stream, each as a line; an error is its last one."""
        try:
            if form.chat:
                for text in texts:
                    yield line(form.opening(text))
            async for place, event in ticket.events():
                chunk = form.chunk(texts[place], event)
                if chunk is not None:
                    yield line(chunk)
            if with_usage:
                yield line(form.last(texts, read))
        except PellucidError as error:
            yield line(bytes(of_error(error).body).decode())
        finally:
            self.meter.count_tokens(form.model, read, sum(text.tokens for text in texts))
        yield line("[DONE]")


class EventStream(StreamingResponse):
    """Server-sent events; however it ends, its texts are decoded no further."""

    media_type = "text/event-stream"

    def __init__(self, ticket: Ticket, lines: AsyncIterator[str]) -> None:
        super().__init__(lines)
        self.ticket = ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.ticket.cancel()


def check_length(tokens: int, engine: Engine, param: str) -> None:
    """RefusedError for more tokens than the model can look at."""
    window = engine.model.config.context_length
    if tokens > window:
        message = problem(param, f"{tokens:,} tokens", f"at most {window:,}, the model's context", "Send less of it.")
        raise RefusedError(message, code="context_length_exceeded", param=param)
