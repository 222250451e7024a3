"""The one shape of every conversation, and the one function that turns it into token ids and a loss mask.

    <|system|>…<|user|>…<|assistant|>…<|endoftext|><|user|>…<|assistant|>…<|endoftext|>

Trained are the assistant's words and the end-of-text behind them, nothing else: who never learns to end never stops.
The same layout stands in the run folder as a chat template, so that transformers makes the same ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pellucid.text.tokenizer import Tokenizer

ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|endoftext|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class Message:
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Conversation:
    """Turns in their order."""

    messages: tuple[Message, ...]

    def encode(self, tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
        """Ids, and for each id whether it is trained (the assistant's words and its end-of-text)."""
        ids: list[int] = []
        trained: list[bool] = []
        for message in self.messages:
            content = tokenizer.encode(message.content)  # a text that spells a role token stays text
            ids += [tokenizer.special_tokens[f"<|{message.role}|>"], *content]
            trained += [False] + [message.role == "assistant"] * len(content)
            if message.role == "assistant":
                ids.append(tokenizer.end_of_text)
                trained.append(True)
        return ids, trained

    def prompt(self, tokenizer: Tokenizer) -> list[int]:
        """Ids up to where the assistant is to speak."""
        ids, _ = self.encode(tokenizer)
        return [*ids, tokenizer.special_tokens["<|assistant|>"]]


def lacks(tokenizer: Tokenizer) -> str:
    """What keeps a model with this tokenizer from talking in our layout, in a few words; empty where nothing does.

    A template is compared and never run: what comes with a model is no program of ours.
    """
    template = tokenizer.chat_template
    if template is None or any(name not in tokenizer.special_tokens for name in ROLE_TOKENS):
        return "a model that was not taught to talk" if template is None else "a chat template of another layout"
    if template.strip() == CHAT_TEMPLATE:
        return ""
    ends = tokenizer.end_of_text_name in template or "eos_token" in template
    return "a chat template of another layout" if ends else "a chat template that never ends an answer"


def ask(instruction: str, extra: str = "", earlier: Sequence[Message] = ()) -> Conversation:
    """An instruction with its input, after earlier turns, awaiting an answer."""
    content = f"{instruction}\n{extra}" if extra else instruction
    return Conversation((*earlier, Message("user", content)))


def answered(conversation: Conversation, answer: str) -> Conversation:
    """The same conversation with the assistant's answer."""
    return Conversation((*conversation.messages, Message("assistant", answer)))


def ensure_role_tokens(tokenizer: Tokenizer) -> int:
    """Add the role tokens that the tokenizer lacks; returns how many were new (the embedding must grow by as many)."""
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer.add_special_tokens([name for name in ROLE_TOKENS if name not in tokenizer.special_tokens])
