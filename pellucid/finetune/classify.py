"""A classifier: the pretrained model with one linear head on the vector of the last real token.

The last *real* token, found by length: padding never changes an answer (a property test says so). Saved as a
GPT2ForSequenceClassification (or LlamaForSequenceClassification) folder. What else an answer needs, how long texts are
cut and from which probability on a class is said, stands in its config.json under `pellucid`; the temperature that
calibrates its probabilities is in the head itself, so that transformers gives the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pellucid.config import FitConfig, as_dict, from_dict
from pellucid.finetune.labelled import Labelled
from pellucid.finetune.padded import LengthGroupedSampler, named, pad
from pellucid.model.formats.folder import check_fits, read_model_folder, write_model_folder
from pellucid.model.gpt import GPT
from pellucid.pretrain.loss import Loss
from pellucid.runtime import DataError, problem
from pellucid.text.tokenizer import Tokenizer

# B batch, T tokens, D width of the model, C classes


Array: TypeAlias = NDArray[Any]
Cut = Literal["end", "start", "middle"]
ClassWeight = Literal["none", "balanced", "sampler"]


@dataclass(frozen=True)
class Rule:
    """How texts become answers, beside the weights: kept in config.json."""

    several: bool = False
    """Whether a text may have several labels, or none."""
    cut: Cut = "end"
    """What is left out of a text that is longer than the context."""
    thresholds: dict[str, float] = field(default_factory=dict)
    """From which probability on a label is said, chosen on the val split; without one, the likeliest is said."""
    temperature: float = 1.0
    """What the head was divided by, so that a probability of 0.8 is right in 80 %."""


class Classifier(nn.Module):
    """A GPT and a head from its last vector to one logit per class."""

    def __init__(self, gpt: GPT, labels: Sequence[str], rule: Rule | None = None) -> None:
        super().__init__()
        self.gpt = gpt
        self.labels = tuple(labels)
        self.rule = rule or Rule()
        self.head = nn.Linear(gpt.config.d_model, len(labels), bias=False, device=gpt.device)
        nn.init.normal_(self.head.weight, std=0.02)
        if gpt.output_layer is not None:  # never asked here; several processes would wait for its gradients
            gpt.output_layer.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.gpt.device

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, C) of texts (B, T) that are `lengths` (B,) long, whatever stands behind their ends."""
        return self.at(ids, lengths[:, None])[:, 0]

    def at(self, ids: Tensor, ends: Tensor) -> Tensor:
        """Logits (B, E, C) of the first `ends` (B, E) tokens of each text: it is read once."""
        hidden = self.gpt.hidden(ids)
        rows = torch.arange(len(ids), device=hidden.device)[:, None]
        logits: Tensor = self.head(hidden[rows, (ends - 1).clamp_min(0)])
        return logits

    def save(self, folder: Path, tokenizer: Tokenizer) -> None:
        """Write a GPT2ForSequenceClassification folder with its tokenizer."""
        end = tokenizer.end_of_text
        extra: dict[str, Any] = {
            "id2label": {str(number): label for number, label in enumerate(self.labels)},
            "label2id": {label: number for number, label in enumerate(self.labels)},
            "pad_token_id": end,
            "bos_token_id": end,
            "eos_token_id": end,
            "problem_type": f"{'multi' if self.rule.several else 'single'}_label_classification",
            "pellucid": as_dict(self.rule),
        }
        write_model_folder(folder, self.gpt.config, self.gpt.state_dict(), extra, head=self.head.weight)
        tokenizer.model_max_length = self.gpt.config.context_length
        tokenizer.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Classifier:
        """Read a sequence classification folder, ours or one of transformers."""
        config, weights, settings = read_model_folder(Path(folder))
        head = weights.pop("head", None)
        if head is None:
            advice = "Make one with `pellucid finetune classify`, or try `pellucid generate` for this folder."
            raise DataError(problem(folder, "a model without a classifier's head", "a classifier", advice))
        several = settings.get("problem_type") == "multi_label_classification"
        if settings.get("problem_type") == "regression" or (len(head) == 1 and not several):
            advice = "As a class its answer would be certain, whatever the text."
            raise DataError(problem(folder, "a model that gives a number, no label", "two or more classes", advice))
        # transformers leaves the names out where nobody gave any
        names = settings.get("id2label") or {str(number): f"LABEL_{number}" for number in range(len(head))}
        if not isinstance(names, dict) or set(names) != {str(number) for number in range(len(head))}:
            found = f"{len(names)} labels for a head of {len(head)} classes"
            raise DataError(problem(f"{folder}/config.json", found, "a label for each", "Mend id2label."))
        gpt = GPT(config)
        gpt.load_state_dict(weights)
        kept = settings.get("pellucid") or {"several": several}
        if not isinstance(kept, dict):
            raise DataError(problem(f"{folder}/config.json", "pellucid that is no object", "an object", "Remove it."))
        rule = from_dict(Rule, kept, f"{folder}/config.json, pellucid")
        model = cls(gpt, [str(names[str(number)]) for number in range(len(head))], rule)
        model.head.weight.data = head
        return model.eval()


def open_classifier(run: Path) -> tuple[Classifier, Tokenizer]:
    """A classifier with its tokenizer. DataError where the tokenizer has tokens that the model does not know."""
    model, tokenizer = Classifier.load(run), Tokenizer.load(run)
    check_fits(model.gpt.config, tokenizer, run)
    return model, tokenizer


@dataclass(frozen=True)
class TextBatch:
    """Padded ids (B, T), true lengths (B,), and how much each label is wanted (B, C): 1, 0, or a probability."""

    ids: Tensor
    lengths: Tensor
    targets: Tensor
    beginnings: Tensor | None = None
    """(B, P) how many tokens each beginning has that a teacher has judged, too; 0: there is none."""
    early: Tensor | None = None
    """(B, P, C) how much each label is wanted there."""

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())


def encode_texts(texts: Sequence[str], tokenizer: Tokenizer, context_length: int, cut: Cut = "end") -> list[list[int]]:
    """Ids of each text, cut to the context; an empty text is one end-of-text token."""
    rows = [ids or [tokenizer.end_of_text] for ids in tokenizer.encode_batch(texts)]
    return [cut_row(ids, context_length, cut) for ids in rows]


def cut_row(ids: list[int], limit: int, cut: Cut) -> list[int]:
    """At most `limit` ids: without the end, without the start, or without the middle."""
    if len(ids) <= limit:
        return ids
    head = {"end": limit, "start": 0, "middle": (limit + 1) // 2}[cut]
    return ids[:head] + ids[len(ids) - (limit - head) :]


@dataclass(frozen=True)
class Lesson:
    """What a teacher says, as probabilities: of the N training texts, of M more that nobody has labelled, and of P
    beginnings of each of them all. A causal model reads every beginning on its way: to ask about some costs nothing."""

    learnt: Array  # (N, C)
    texts: Sequence[str]
    said: Array  # (M, C)
    cuts: NDArray[np.int64]  # (N + M, P): how many characters each beginning has; 0: there is none
    early: Array  # (N + M, P, C)
    rounds: int = 1
    """How often each training text is met while each of the others is met once."""


LABELS_COUNT = 0.5  # of a label, beside its teacher's opinion
EVALUATED = 512  # texts of val, at most
SOFTER = 3.0  # a teacher's logits are divided by it: how sure it is tells more than that it is sure


class Classification:
    """Classifying as a task for `fit`."""

    name = "classify"

    def __init__(
        self,
        splits: dict[str, list[Labelled]],
        labels: Sequence[str],
        tokenizer: Tokenizer,
        config: FitConfig,
        context: int,
        rule: Rule | None = None,
        class_weight: ClassWeight = "none",
        lesson: Lesson | None = None,
    ) -> None:
        self.rule = rule or Rule()
        self.tokenizer, self.end = tokenizer, tokenizer.end_of_text
        self.ids = {
            name: encode_texts([example.text for example in members], tokenizer, context, self.rule.cut)
            for name, members in splits.items()
        }
        self.targets = {name: target_rows(members, labels, self.rule.several) for name, members in splits.items()}
        counts = self.targets["train"].sum(axis=0)
        self.weights = torch.ones(len(labels))
        self.chosen = np.arange(len(self.ids["train"]))
        if class_weight == "balanced":
            self.weights = balanced_weights(counts, len(self.chosen), self.rule.several)
        elif class_weight == "sampler":
            self.chosen = evened_out(self.targets["train"])
        self.rows, self.wanted = self.ids["train"], self.targets["train"]
        self.beginnings: Array = np.zeros(0)
        self.early: Array = np.zeros(0)
        if lesson:
            self._take(lesson, [example.text for example in splits["train"]], tokenizer, context)
        lengths = [len(self.rows[i]) for i in self.chosen]
        self.sampler = LengthGroupedSampler(lengths, config.batch_size, config.seed)

    def _take(self, lesson: Lesson, texts: Sequence[str], tokenizer: Tokenizer, context: int) -> None:
        """Train on the lesson's texts, too, and let its teacher have a say about the others."""
        more = np.arange(len(lesson.texts)) + len(self.rows)
        self.chosen = np.concatenate([np.tile(self.chosen, lesson.rounds), more])
        self.rows = self.rows + encode_texts(lesson.texts, tokenizer, context, self.rule.cut)
        own = LABELS_COUNT * self.wanted + (1 - LABELS_COUNT) * lesson.learnt
        self.wanted = softer(np.concatenate([own, lesson.said]), self.rule.several).astype(np.float32)
        self.beginnings = token_counts([*texts, *lesson.texts], lesson.cuts, self.rows, tokenizer)
        self.early = softer(lesson.early, self.rule.several).astype(np.float32)

    def batches(self, step: int) -> list[TextBatch]:
        """The texts of a step."""
        chosen = self.chosen[self.sampler.indices(step)]
        ids, lengths = pad([self.rows[i] for i in chosen], self.end)
        batch = TextBatch(ids, lengths, torch.from_numpy(self.wanted[chosen]))
        if not len(self.beginnings):
            return [batch]
        early = torch.from_numpy(self.beginnings[chosen]), torch.from_numpy(self.early[chosen])
        return [replace(batch, beginnings=early[0], early=early[1])]

    def describe(self, step: int) -> str:
        """How the texts of a step begin."""
        return named([self.rows[i] for i in self.chosen[self.sampler.indices(step)]], self.tokenizer)

    def loss(self, model: Classifier, batch: TextBatch) -> Loss:
        """Cross-entropy of the classes (of each label, where a text may have several); the count is of texts."""
        ends, wanted = batch.lengths[:, None], batch.targets[:, None]
        if batch.beginnings is not None and batch.early is not None:
            ends, wanted = torch.cat([ends, batch.beginnings], dim=1), torch.cat([wanted, batch.early], dim=1)
        ends, wanted, weights = (tensor.to(model.device) for tensor in (ends, wanted, self.weights))
        logits = model.at(batch.ids.to(model.device), ends).float()  # (B, E, C)
        if self.rule.several:
            losses = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weights, reduction="none").sum(dim=2)
        else:
            losses = -(logits.log_softmax(dim=2) * wanted * weights).sum(dim=2)
        return Loss((losses * (ends > 0)).sum(), len(batch.targets))

    def evaluate(self, model: Classifier) -> dict[str, float]:
        """Loss and accuracy on the val split: of thousands of texts some hundreds, since it is done again and again."""
        chosen = some_of_each(self.targets["val"], EVALUATED)
        logits = predict_logits(model, [self.ids["val"][i] for i in chosen], self.end)
        targets = self.targets["val"][chosen]
        loss = log_loss(logits, targets, self.rule.several)
        said = logits > 0 if self.rule.several else one_hot(logits.argmax(axis=1), logits.shape[1])
        return {"loss": loss, "accuracy": float((said == (targets > 0)).all(axis=1).mean())}

    def sample(self, model: Classifier) -> str:
        """Nothing to show."""
        return ""


def balanced_weights(counts: Array, texts: int, several: bool) -> Tensor:
    """(C,): what makes classes that are on `counts` of the texts weigh the same, with a mean over texts of 1.

    Where a text may have several labels, what makes those with a label weigh as much as those without it.
    """
    weights = np.maximum(texts - counts, 1) / counts if several else counts.sum() / (len(counts) * counts)
    return torch.tensor(weights, dtype=torch.float32)


def some_of_each(targets: Array, most: int) -> NDArray[np.int64]:
    """Up to `most` of the rows, of each class its share, wherever in the file it stands."""
    if len(targets) <= most:
        return np.arange(len(targets))
    by_class = np.lexsort(targets.T)
    return np.sort(by_class[np.arange(most) * len(targets) // most])


def token_counts(
    texts: Sequence[str], cuts: NDArray[np.int64], rows: Sequence[Sequence[int]], tokenizer: Tokenizer
) -> NDArray[np.int64]:
    """How many tokens each beginning has; 0 where its tokens are not the first ones of the text's row."""
    places = [(i, p) for i, p in zip(*np.nonzero(cuts), strict=True)]
    beginnings = tokenizer.encode_batch([texts[i][: cuts[i, p]] for i, p in places])
    counts = np.zeros_like(cuts)
    for (i, p), ids in zip(places, beginnings, strict=True):
        counts[i, p] = len(ids) if ids == list(rows[i][: len(ids)]) else 0
    return counts


def target_rows(examples: Sequence[Labelled], labels: Sequence[str], several: bool) -> Array:
    """(N, C) ones and zeros: which labels each text has."""
    number = {label: index for index, label in enumerate(labels)}
    rows = np.zeros((len(examples), len(labels)), dtype=np.float32)
    for row, example in zip(rows, examples, strict=True):
        row[[number[label] for label in (example.labels if several else (example.label,))]] = 1
    return rows


def softer(probabilities: Array, several: bool) -> Array:
    """(…, C) probabilities whose logits are a third of what they were; the temperature makes up for it in the end."""
    logits = np.log(np.clip(probabilities, 1e-3, 1))
    if several:
        logits = logits - np.log(np.clip(1 - probabilities, 1e-3, 1))
    rows = to_probabilities(logits.reshape(-1, probabilities.shape[-1]) / SOFTER, several)
    return rows.reshape(probabilities.shape)


def evened_out(targets: Array) -> Array:
    """Numbers of texts, those of rarer classes again and again, until each class has as many as the largest.

    With several labels a text is drawn as often as the rarest of its own asks for.
    """
    counts = targets.sum(axis=0)
    wanted = np.where(targets > 0, counts.max() / np.maximum(counts, 1), 0).max(axis=1)
    wanted = np.maximum(wanted, 1)
    times = np.diff(np.floor(np.cumsum(wanted)), prepend=0).astype(int)  # a share of a time adds up over the texts
    return np.repeat(np.arange(len(targets)), times)


def log_loss(logits: Array, targets: Array, several: bool) -> float:
    """Mean cross-entropy of a text in nats (with several labels, of a label)."""
    if several:
        return float((np.logaddexp(0, logits) - targets * logits).mean())
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float(-((shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))) * targets).sum(axis=1).mean())


def one_hot(numbers: Array, classes: int) -> Array:
    """(N,) class numbers as (N, C) booleans."""
    rows: Array = np.arange(classes) == numbers[:, None]
    return rows


def to_probabilities(logits: Array, several: bool) -> Array:
    """(N, C) logits as probabilities: of each label by itself, or of classes that exclude each other."""
    if several:
        probabilities: Array = 1 / (1 + np.exp(-logits))
        return probabilities
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Array = raised / raised.sum(axis=1, keepdims=True)
    return shares


@torch.inference_mode()
def predict_logits(
    model: Classifier,
    rows: Sequence[Sequence[int]],
    fill: int,
    batch_size: int = 64,
    told: Callable[[int], None] = lambda texts: None,
) -> Array:
    """(N, C) logits of encoded texts, alike lengths together; `told` hears how many texts each pass has read."""
    model.eval()
    result = np.zeros((len(rows), len(model.labels)))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        ids, lengths = pad([rows[i] for i in chosen], fill)
        result[chosen] = model(ids.to(model.device), lengths.to(model.device)).float().cpu().numpy()
        told(len(chosen))
    return result


def predict(model: Classifier, rows: Sequence[Sequence[int]], fill: int, **more: Any) -> Array:
    """(N, C) probabilities of encoded texts; `more` is for `predict_logits`."""
    return to_probabilities(predict_logits(model, rows, fill, **more), model.rule.several)


def decide(probabilities: Array, labels: Sequence[str], rule: Rule) -> Array:
    """(N, C) booleans: the labels that are said. A class with a threshold is said from there on, else the likeliest."""
    if rule.several:
        limits = np.array([rule.thresholds.get(label, 0.5) for label in labels])
        above: Array = probabilities >= limits
        return above
    numbers = probabilities.argmax(axis=1)
    if len(labels) == 2 and len(rule.thresholds) == 1:
        ((label, limit),) = rule.thresholds.items()
        positive = labels.index(label)
        numbers = np.where(probabilities[:, positive] >= limit, positive, 1 - positive)
    return one_hot(numbers, len(labels))
