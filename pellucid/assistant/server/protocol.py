"""What clients send and get, as OpenAI's protocol has it: the checks, and the OpenAPI description, come from here.

What we don't have is accepted where it asks for nothing (`presence_penalty: 0`), so that usual clients work, and
refused otherwise. `top_k`, `min_p` and `repetition_penalty` are ours (and other servers').
Page: OpenAI, "API Reference", Completions and Chat.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from pellucid.generation.sampling import COLDEST, Sampling

MOST_STOPS, LONGEST_STOP = 16, 256
MOST_TEXTS = 64  # of one request
MOST_TOKENS = 4096  # of one text
Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]


def _whole(number: Any) -> Any:
    """JSON has one kind of number: 5.0 is as whole as 5."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _no(asked: bool) -> bool:
    """Literal[False] would take 0.0, too, which equals it."""
    if asked:
        raise ValueError("we don't have this: leave it out.")
    return asked


WHOLE = BeforeValidator(_whole)
No = Annotated[bool, AfterValidator(_no), WithJsonSchema({"type": "boolean", "const": False})]
Id = Annotated[int, Field(ge=0, lt=1 << 31), WHOLE]
Nothing = Annotated[float, Field(ge=0, le=0)]


class Strict(BaseModel):
    """No unknown keys, and no text where a number is meant."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Strict):
    """Of a stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Wanted(Strict):
    """What a completion and a chat completion have in common."""

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=1 << 31), WHOLE] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS), WHOLE] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_TEXTS), WHOLE] | None = None
    seed: Annotated[int, WHOLE] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    presence_penalty: Nothing | None = None
    frequency_penalty: Nothing | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None

    def sampling(self) -> Sampling:
        """How to choose; without a temperature, from the model's own probabilities."""
        temperature = 1.0 if self.temperature is None else self.temperature
        return Sampling(
            0.0 if temperature < COLDEST else temperature,
            self.top_k or 0,
            1.0 if self.top_p is None else max(self.top_p, 1e-9),  # 0 keeps the likeliest alone
            self.min_p or 0.0,
            1.0 if self.repetition_penalty is None else self.repetition_penalty,
        )

    def stops(self) -> list[str]:
        """Where a text is to end."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def with_usage(self) -> bool:
        """Whether a stream ends with the count of its tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class CompletionRequest(Wanted):
    """Continue a text, or several."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS)]
        | Annotated[list[Id], Field(min_length=1)]
        | Annotated[list[Annotated[list[Id], Field(min_length=1)]], Field(min_length=1, max_length=MOST_TEXTS)]
    )
    logprobs: Annotated[int, Field(ge=0, le=5), WHOLE] | None = None
    best_of: Annotated[int, Field(ge=1, le=1), WHOLE] | None = None
    echo: No | None = None
    suffix: Literal[""] | None = None

    def prompts(self) -> Any:
        """Each text to continue, or its ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]  # which the types above have seen to
        return self.prompt


class TextPart(Strict):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(Strict):
    """A turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: str | None = None
    refusal: None = None

    def text(self) -> str:
        """What is said."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class TextFormat(Strict):
    """The only form of an answer."""

    type: Literal["text"]


class ChatRequest(Wanted):
    """Answer the last turn of a talk."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS), WHOLE] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = None
    response_format: TextFormat | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None


class ClassifyRequest(Strict):
    """Say the class of each text."""

    model: str
    input: str | Annotated[list[str], Field(min_length=1, max_length=256)]


# ---------------------------------------------------------------- answers


class ErrorContent(BaseModel):
    """What is wrong, and where."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """An error."""

    error: ErrorContent


class Usage(BaseModel):
    """Tokens read and made."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(BaseModel):
    """For each token its text, the logarithm of its probability, the likeliest ones, where in the text it begins."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One continuation."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    """The continuations: those of the first prompt, then those of the next."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class TopLogprob(BaseModel):
    """A token that might have been."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """A token of an answer, and the likeliest ones at its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    """One for each token."""

    content: list[TokenLogprob]
    refusal: None


class Answer(BaseModel):
    """The assistant's turn."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: Answer
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """The answers."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ClassifiedText(BaseModel):
    """What is said of one text: the label (several, where a text may have several), and every label's probability."""

    index: int
    label: str
    labels: list[str]
    probability: float
    probabilities: dict[str, float]


class Classification(BaseModel):
    """One for each text."""

    object: Literal["list"]
    model: str
    data: list[ClassifiedText]
    usage: Usage


class Model(BaseModel):
    """A run that is open."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["pellucid"]
    kind: Literal["language model", "assistant", "classifier", "in training"]


class Models(BaseModel):
    """The runs that are open."""

    object: Literal["list"]
    data: list[Model]
