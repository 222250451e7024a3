"""Instruction tuning as a task for `fit`: answers are learnt, prompts are only read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pellucid.config import FitConfig
from pellucid.finetune.conversation import CHAT_TEMPLATE, ensure_role_tokens
from pellucid.finetune.instructions import Example
from pellucid.finetune.padded import LengthGroupedSampler, named, pad
from pellucid.generation.engine import generate_batch
from pellucid.model.gpt import GPT
from pellucid.model.segments import Segments, pack
from pellucid.pretrain.alike import Alike
from pellucid.pretrain.language import LanguageModelling, TokenBatch
from pellucid.pretrain.loss import Loss, token_loss
from pellucid.runtime import DataError, inform, problem
from pellucid.text.tokenizer import Tokenizer

# B batch, T tokens

Row = tuple[list[int], list[bool]]  # the ids of a conversation, and which of them are trained


@dataclass(frozen=True)
class AnswerBatch:
    """Inputs, targets and which targets are trained, each (B, T); lengths (B,) without padding."""

    inputs: Tensor
    targets: Tensor
    trained: Tensor
    lengths: Tensor
    segments: Tensor | None = None
    """(B, S) lengths of the conversations that stand together in each row, where they are packed; 0 is none."""

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())


class InstructionTuning:
    """Conversations with their answers: padded batches of similar lengths, or packed rows as long as the context."""

    name = "instruct"

    def __init__(
        self,
        splits: dict[str, list[Example]],
        tokenizer: Tokenizer,
        config: FitConfig,
        context_length: int,
        replay: LanguageModelling | None = None,
        packing: bool = False,
    ) -> None:
        """`replay` is pretraining to go on beside it: what was learnt from text is not forgotten over the answers.

        With `packing` a step's conversations stand together in few rows, none seeing another: the same loss.
        """
        self.tokenizer = tokenizer
        self.replay = replay
        self.alike: Alike | None = None
        self.room = context_length if packing else 0
        self.rows = {
            name: encode_examples(members, tokenizer, context_length, name)
            for name, members in splits.items()
            if name != "test"
        }
        if not self.rows["train"]:
            advice = "Take a model with a longer context, or shorter instructions."
            found, expected = "no train example that fits", f"one within {context_length} tokens"
            raise DataError(problem("instructions", found, expected, advice))
        if not self.rows["val"]:
            inform(f"no val example fits into {context_length} tokens: the loss of one of train is shown instead.")
            self.rows["val"] = self.rows["train"][:1]
        self.shown = splits["val"][0]
        self.sampler = LengthGroupedSampler([len(ids) for ids, _ in self.rows["train"]], config.batch_size, config.seed)

    def batches(self, step: int) -> list[AnswerBatch | TokenBatch]:
        """The conversations of a step, and the text that is replayed beside them."""
        rows = [self.rows["train"][i] for i in self.sampler.indices(step)]
        return [self._batch(rows), *(self.replay.batches(step) if self.replay else ())]

    def describe(self, step: int) -> str:
        """How the conversations of a step begin, and which text is replayed."""
        found = named([self.rows["train"][i][0] for i in self.sampler.indices(step)], self.tokenizer)
        return f"{found}; {self.replay.describe(step)}" if self.replay else found

    def loss(self, model: GPT, batch: AnswerBatch | TokenBatch) -> Loss:
        """Cross-entropy of the answers and their end-of-text, or of replayed text."""
        device = model.device
        inputs, targets = batch.inputs.to(device), batch.targets.to(device)
        if isinstance(batch, TokenBatch):
            return token_loss(model, inputs, targets, alike=self.alike)
        segments = Segments(batch.segments.tolist(), inputs.shape[1], device) if batch.segments is not None else None
        return token_loss(model, inputs, targets, batch.trained.to(device), segments, self.alike)

    def used(self) -> Tensor:
        """The tokens of all conversations and of the text that is replayed."""
        used = torch.zeros(self.tokenizer.vocab_size, dtype=torch.bool)
        used[self.tokenizer.end_of_text] = True
        used[torch.tensor([token for ids, _ in self.rows["train"] for token in ids])] = True
        if self.replay:
            text = self.replay.used()
            used[: len(text)] |= text
        return used

    def evaluate(self, model: GPT) -> dict[str, float]:
        """Loss on (the first 512 conversations of) the val split."""
        loss = answer_loss(model, self.rows["val"][:512], self.tokenizer.end_of_text)
        assert loss is not None, "each of them has something to learn"
        return {"loss": loss}

    def sample(self, model: GPT) -> str:
        """The model's answer to the first question of the val split."""
        prompt = self.shown.question().prompt(self.tokenizer)
        end, size = self.tokenizer.end_of_text, self.tokenizer.vocab_size
        ((ids, _),) = generate_batch(model, [prompt], 60, end, vocab_size=size)
        return self.tokenizer.decode(ids)

    def _batch(self, rows: Sequence[Row]) -> AnswerBatch:
        if self.room:
            return packed_batch(rows, self.room, self.tokenizer.end_of_text)
        return padded_batch(rows, self.tokenizer.end_of_text)


def padded_batch(rows: Sequence[Row], end: int) -> AnswerBatch:
    """A conversation in each row, filled up on the right. Padding is untrained by its place, never by its id."""
    ids, lengths = pad([ids for ids, _ in rows], end)
    trained, _ = pad([mask for _, mask in rows], 0)
    return AnswerBatch(ids[:, :-1], ids[:, 1:], trained[:, 1:].bool(), lengths)


def answer_loss(model: GPT, rows: Sequence[Row], end: int) -> float | None:
    """Mean nats of all trained tokens; None where there are none. Similar lengths run together."""
    total, count = 0.0, 0
    rows = sorted(rows, key=lambda row: len(row[0]))
    for first in range(0, len(rows), 64):
        batch = padded_batch(rows[first : first + 64], end)
        inputs, targets, trained = (part.to(model.device) for part in (batch.inputs, batch.targets, batch.trained))
        loss = token_loss(model, inputs, targets, trained)
        total, count = total + loss.total.item(), count + loss.count
    return total / count if count else None


def packed_batch(rows: Sequence[Row], room: int, end: int) -> AnswerBatch:
    """The same conversations, as many in each row of `room` inputs as fit."""
    places = pack([len(ids) - 1 for ids, _ in rows], room)
    inputs, _ = pad([[token for i in row for token in rows[i][0][:-1]] for row in places], end)
    targets, _ = pad([[token for i in row for token in rows[i][0][1:]] for row in places], end)
    trained, _ = pad([[mask for i in row for mask in rows[i][1][1:]] for row in places], 0)
    segments, _ = pad([[len(rows[i][0]) - 1 for i in row] for row in places], 0)
    lengths = torch.tensor([sum(len(rows[i][0]) for i in row) for row in places])
    return AnswerBatch(inputs, targets, trained.bool(), lengths, segments)


def encode_examples(
    examples: Sequence[Example], tokenizer: Tokenizer, context_length: int, name: str = "train"
) -> list[Row]:
    """Ids and loss mask of each example, cut to the context; what then has nothing to train is left out.

    Both are counted in a message.
    """
    limit = context_length + 1  # the last token is only a target
    rows = [example.whole().encode(tokenizer) for example in examples]
    kept = [(ids[:limit], trained[:limit]) for ids, trained in rows if any(trained[:limit])]
    longer, lost = sum(len(ids) > limit for ids, _ in rows), len(rows) - len(kept)
    if longer:
        whole = sum(ids[-1] == tokenizer.end_of_text for ids, _ in kept)
        inform(
            f"{longer} of {len(rows)} {name} examples are longer than the context of {context_length} tokens: "
            f"{longer - lost} cut at the end, {lost} left out, as nothing of an answer is left. "
            f"That leaves {len(kept)}, {whole} with the end of their answer, which teaches a model to stop."
        )
    return kept


def prepare_model(model: GPT, tokenizer: Tokenizer) -> None:
    """Give the tokenizer its role tokens and the model room for them; a template of another layout is replaced."""
    if tokenizer.chat_template is not None and tokenizer.chat_template.strip() != CHAT_TEMPLATE:
        inform("The model's own chat template is replaced by Pellucid's, which this finetuning teaches.")
    ensure_role_tokens(tokenizer)
    if tokenizer.vocab_size > model.config.vocab_size:
        model.resize_vocab(tokenizer.vocab_size)


def save_assistant(model: GPT, tokenizer: Tokenizer, out: Path) -> None:
    """Write a Hugging Face folder whose tokenizer carries the chat template."""
    end = tokenizer.end_of_text
    model.save(out, bos_token_id=end, eos_token_id=end, pad_token_id=end)
    tokenizer.model_max_length = model.config.context_length
    tokenizer.save(out)
