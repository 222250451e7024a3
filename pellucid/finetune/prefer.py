"""Preference tuning as a task for `fit`: of two answers to the same question, the better one becomes likelier (DPO).

The loss of a pair is −log σ(β · (how much more the model likes the chosen answer than its reference does − the same
of the rejected one)). The reference is the model as it was; what it says of each pair is computed once, and kept.
Paper: Rafailov et al. 2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward Model".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pellucid.config import FitConfig
from pellucid.finetune.conversation import Conversation, Message, answered
from pellucid.finetune.instruct import Row, padded_batch
from pellucid.finetune.instructions import Example, family_and_split
from pellucid.finetune.padded import LengthGroupedSampler, named
from pellucid.finetune.records import (
    Record,
    alpaca_question,
    alpaca_talk,
    checked_turns,
    is_transcript,
    read_records,
    turns_at,
    under_system,
)
from pellucid.generation.engine import generate_batch
from pellucid.model.attention import CausalAttention
from pellucid.model.gpt import GPT
from pellucid.pretrain.loss import Loss
from pellucid.runtime import DataError, atomic_file, inform, problem, progress_bar
from pellucid.text.tokenizer import Tokenizer

# P pairs, T tokens, N trained tokens; answers stand as (P, 2): chosen, rejected

REFERENCE = "reference.safetensors"
SLICE = 16  # pairs that the reference reads at one time


@dataclass(frozen=True)
class Pair(Example):
    """A question with two answers: `output` is the chosen one."""

    rejected: str = ""

    @property
    def answers(self) -> tuple[str, ...]:
        """What is learnt of the question."""
        return self.output, self.rejected

    def worse(self) -> Conversation:
        """The conversation with the rejected answer."""
        return answered(self.question(), self.rejected)


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a file; those whose two answers are the same teach nothing and are dropped, counted.

    DataError names the file, the line and the record of what is broken or missing.
    """
    pairs = [to_pair(record) for record in read_records(path)]
    kept = [pair for pair in pairs if pair.output.strip() != pair.rejected.strip()]
    if len(kept) < len(pairs):
        inform(f"{path}: {len(pairs) - len(kept)} of {len(pairs)} pairs have the same answer twice and are dropped.")
    if not kept:
        raise DataError(problem(path, "no pair of different answers", "chosen and rejected answers", "Check the file."))
    return kept


def to_pair(record: Record) -> Pair:
    """A record with chosen and rejected, each a text or turns; the question is a prompt, an instruction, or in both."""
    value = record.value
    about = ""
    if "prompt" in value:
        before = under_system(record, turns_at(record, "prompt", "user"))
    elif isinstance(value.get("chosen"), list) or is_transcript(value.get("chosen")):
        before = []  # the turns that chosen and rejected share
    else:
        before, about = [*alpaca_talk(record), Message("user", alpaca_question(record))], record.text_of("input")
    chosen, rejected = (
        checked_turns(record, [*before, *turns_at(record, key, "assistant")]) for key in ("chosen", "rejected")
    )
    if chosen[:-1] != rejected[:-1]:
        raise record.bad("chosen and rejected answers to different talks", "the same turns but for the last")
    *earlier, question, answer = chosen
    family, split = family_and_split(record)
    return Pair(question.content, about, answer.content, family, split, tuple(earlier), rejected[-1].content)


@dataclass(frozen=True)
class PairBatch:
    """Both answers of each pair with their question: (P, 2, T), lengths (P, 2); the reference's view of them (P, 2)."""

    inputs: Tensor
    targets: Tensor
    trained: Tensor
    lengths: Tensor
    reference: Tensor

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())


class PreferenceTuning:
    """Pairs of answers in batches of similar lengths."""

    name = "prefer"

    def __init__(
        self, splits: dict[str, list[Pair]], tokenizer: Tokenizer, config: FitConfig, context_length: int, beta: float
    ) -> None:
        self.tokenizer, self.beta = tokenizer, beta
        self.rows = {name: encode_pairs(pairs, tokenizer, context_length, name) for name, pairs in splits.items()}
        if empty := [name for name, rows in self.rows.items() if not rows]:
            advice = "Take a model with a longer context, or shorter pairs."
            found = f"no {empty[0]} pair that fits"
            raise DataError(problem("pairs", found, f"one within {context_length} tokens", advice))
        self.shown = splits["val"][0]
        self.reference: dict[str, Tensor] = {}
        lengths = [max(len(ids) for ids, _ in pair) for pair in self.rows["train"]]
        self.sampler = LengthGroupedSampler(lengths, config.batch_size, config.seed)

    def refer(self, model: GPT, file: Path) -> None:
        """Let the model as it is now be the reference; its log-probabilities are kept in `file` for a resumed run.

        What another model said there, or what was said of other pairs, is written over.
        """
        asked = fingerprint(self.rows, model)
        kept = read_reference(file, asked)
        if kept is None:
            kept = {}
            model.eval()
            with torch.inference_mode(), progress_bar() as bar:
                task = bar.add_task("reference", total=sum(map(len, self.rows.values())), note="")
                for name, rows in self.rows.items():
                    parts = []
                    for first in range(0, len(rows), SLICE):
                        batch = pair_batch(rows[first : first + SLICE], self.tokenizer.end_of_text)
                        parts.append(answer_log_probabilities(model, batch).cpu())
                        bar.advance(task, len(parts[-1]))
                    kept[name] = torch.cat(parts) if parts else torch.zeros(0, 2)
            with atomic_file(file) as temporary:
                save_file({name: rows.contiguous() for name, rows in kept.items()}, temporary, {"asked": asked})
        self.reference = kept

    def batches(self, step: int) -> list[PairBatch]:
        """The pairs of a step."""
        return [self._batch("train", self.sampler.indices(step))]

    def describe(self, step: int) -> str:
        """How the pairs of a step begin."""
        return named([self.rows["train"][i][0][0] for i in self.sampler.indices(step)], self.tokenizer)

    def loss(self, model: GPT, batch: PairBatch) -> Loss:
        """Sum of the pairs' losses; the count is of pairs."""
        liked = answer_log_probabilities(model, batch)
        return Loss(preference_losses(liked, batch.reference.to(liked), self.beta).sum(), len(liked))

    def evaluate(self, model: GPT) -> dict[str, float]:
        """Loss, share of pairs in which the chosen answer gained on the rejected one, and by how much, on val."""
        return self.scores(model, "val")

    def scores(self, model: GPT, split: str) -> dict[str, float]:
        """The same on any split. `margin` is β times the gain, in nats."""
        losses, margins = [], []
        for first in range(0, len(self.rows[split]), SLICE):
            batch = self._batch(split, range(first, min(first + SLICE, len(self.rows[split]))))
            liked = answer_log_probabilities(model, batch)
            reference = batch.reference.to(liked)
            losses.append(preference_losses(liked, reference, self.beta))
            margins.append(self.beta * gains(liked, reference))
        margin = torch.cat(margins)
        loss, preferred = torch.cat(losses).mean().item(), (margin > 0).float().mean().item()
        return {"loss": loss, "preferred": preferred, "margin": margin.mean().item()}

    def sample(self, model: GPT) -> str:
        """The model's answer to the first question of the val split."""
        prompt = self.shown.question().prompt(self.tokenizer)
        end, size = self.tokenizer.end_of_text, self.tokenizer.vocab_size
        ((ids, _),) = generate_batch(model, [prompt], 60, end, vocab_size=size)
        return self.tokenizer.decode(ids)

    def _batch(self, split: str, chosen: Sequence[int]) -> PairBatch:
        pairs = [self.rows[split][i] for i in chosen]
        return pair_batch(pairs, self.tokenizer.end_of_text, self.reference[split][list(chosen)])


def encode_pairs(pairs: Sequence[Pair], tokenizer: Tokenizer, context_length: int, name: str) -> list[tuple[Row, Row]]:
    """Ids and masks of the last answers, cut to the context; a pair without something of both is left out, counted."""
    limit = context_length + 1
    kept: list[tuple[Row, Row]] = []
    longer = 0
    for pair in pairs:
        asked = len(pair.question().prompt(tokenizer))
        two = [talk.encode(tokenizer)[0] for talk in (pair.whole(), pair.worse())]
        longer += max(map(len, two)) > limit
        if asked < limit:
            better, worse = ((ids[:limit], [place >= asked for place in range(len(ids[:limit]))]) for ids in two)
            kept.append((better, worse))
    if longer:
        lost = len(pairs) - len(kept)
        inform(
            f"{longer} of {len(pairs)} {name} pairs are longer than the context of {context_length} tokens: "
            f"{longer - lost} cut at the end, {lost} left out, as nothing of an answer is left."
        )
    return kept


def pair_batch(pairs: Sequence[tuple[Row, Row]], end: int, reference: Tensor | None = None) -> PairBatch:
    """Pairs in one padded batch."""
    rows = padded_batch([row for pair in pairs for row in pair], end)

    def paired(part: Tensor) -> Tensor:
        return part.reshape(-1, 2, *part.shape[1:])

    return PairBatch(
        paired(rows.inputs),
        paired(rows.targets),
        paired(rows.trained),
        paired(rows.lengths),
        torch.zeros(len(pairs), 2) if reference is None else reference,
    )


def answer_log_probabilities(model: GPT, batch: PairBatch) -> Tensor:
    """(P, 2): the log-probabilities of the two answers of each pair, summed over their tokens."""
    inputs, targets, trained = (
        part.flatten(0, 1).to(model.device) for part in (batch.inputs, batch.targets, batch.trained)
    )
    hidden = model.hidden(inputs)[trained]  # (N, D): logits for the answers only
    losses = F.cross_entropy(model.logits(hidden).float(), targets[trained], reduction="none")
    summed = losses.new_zeros(len(trained)).index_add(0, trained.nonzero()[:, 0], -losses)
    return summed.view(-1, 2)


def gains(liked: Tensor, reference: Tensor) -> Tensor:
    """(P,): how much more than its reference the model prefers the chosen answer, in nats."""
    moved = liked - reference
    return moved[:, 0] - moved[:, 1]


def without_dropout(model: GPT) -> GPT:
    """The model with nothing dropped in training: what it likes must differ from its reference by learning alone."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, CausalAttention):
            module.dropout = 0.0
    return model


def preference_losses(liked: Tensor, reference: Tensor, beta: float) -> Tensor:
    """(P,): DPO's loss of each pair, from log-probabilities (P, 2) by the model and by its reference."""
    return -F.logsigmoid(beta * gains(liked, reference))


def fingerprint(rows: Mapping[str, Sequence[tuple[Row, Row]]], model: GPT) -> str:
    """What decides a reference: the pairs as ids, and every weight of the model."""
    digest = hashlib.sha256(repr(sorted(rows.items())).encode())
    for name, weight in model.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read_reference(file: Path, asked: str) -> dict[str, Tensor] | None:
    """What an earlier sitting computed of the same pairs by the same model; None where there is nothing of the kind."""
    try:
        with safe_open(file, "pt") as stored:
            if (stored.metadata() or {}).get("asked") != asked:
                return None
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (it is no dictionary)
    except (OSError, SafetensorError):
        return None
