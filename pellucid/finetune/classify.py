"""A classifier: the pretrained model with one linear head on the vector of the last real token.

The last *real* token, found by length: padding never changes an answer (a property test says so). Saved as a
GPT2ForSequenceClassification folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.config import FitConfig
from pellucid.finetune.labelled import Labelled
from pellucid.finetune.padded import LengthGroupedSampler, pad
from pellucid.model.formats.folder import read_model_folder, write_model_folder
from pellucid.model.gpt import GPT
from pellucid.pretrain.loss import Loss
from pellucid.runtime import DataError, problem
from pellucid.text.tokenizer import Tokenizer

# B batch, T tokens, D width of the model, C classes


class Classifier(nn.Module):
    """A GPT and a head from its last vector to one logit per class."""

    def __init__(self, gpt: GPT, labels: Sequence[str]) -> None:
        super().__init__()
        self.gpt = gpt
        self.labels = tuple(labels)
        self.head = nn.Linear(gpt.config.d_model, len(labels), bias=False, device=gpt.device)
        nn.init.normal_(self.head.weight, std=0.02)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.gpt.device

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, C) of texts (B, T) that are `lengths` (B,) long, whatever stands behind their ends."""
        hidden = self.gpt.hidden(ids)
        last = hidden[torch.arange(len(ids), device=hidden.device), lengths - 1]  # (B, D)
        logits: Tensor = self.head(last)
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
        # transformers leaves the names out where nobody gave any
        names = settings.get("id2label") or {str(number): f"LABEL_{number}" for number in range(len(head))}
        if not isinstance(names, dict) or set(names) != {str(number) for number in range(len(head))}:
            found = f"{len(names)} labels for a head of {len(head)} classes"
            raise DataError(problem(f"{folder}/config.json", found, "a label for each", "Mend id2label."))
        gpt = GPT(config)
        gpt.load_state_dict(weights)
        model = cls(gpt, [str(names[str(number)]) for number in range(len(head))])
        model.head.weight.data = head
        return model.eval()


@dataclass(frozen=True)
class TextBatch:
    """Padded ids (B, T), true lengths (B,), class numbers (B,)."""

    ids: Tensor
    lengths: Tensor
    classes: Tensor

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())


def encode_texts(texts: Sequence[str], tokenizer: Tokenizer, context_length: int) -> list[list[int]]:
    """Ids of each text, cut to the context; an empty text is one end-of-text token."""
    return [ids[:context_length] or [tokenizer.end_of_text] for ids in tokenizer.encode_batch(texts)]


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
    ) -> None:
        number = {label: index for index, label in enumerate(labels)}
        self.end = tokenizer.end_of_text
        self.ids = {
            name: encode_texts([example.text for example in members], tokenizer, context)
            for name, members in splits.items()
        }
        self.classes = {name: [number[example.label] for example in members] for name, members in splits.items()}
        self.sampler = LengthGroupedSampler([len(row) for row in self.ids["train"]], config.batch_size, config.seed)

    def batches(self, step: int) -> list[TextBatch]:
        """The texts of a step."""
        chosen = self.sampler.indices(step)
        ids, lengths = pad([self.ids["train"][i] for i in chosen], self.end)
        return [TextBatch(ids, lengths, torch.tensor([self.classes["train"][i] for i in chosen]))]

    def loss(self, model: Classifier, batch: TextBatch) -> Loss:
        """Cross-entropy of the classes; the count is of texts."""
        logits = model(batch.ids.to(model.device), batch.lengths.to(model.device))
        total = F.cross_entropy(logits.float(), batch.classes.to(model.device), reduction="sum")
        return Loss(total, len(batch.classes))

    def evaluate(self, model: Classifier) -> dict[str, float]:
        """Loss and accuracy on the val split."""
        probabilities = predict(model, self.ids["val"], self.end)
        classes = np.array(self.classes["val"])
        loss = -np.log(np.maximum(probabilities[np.arange(len(classes)), classes], 1e-12)).mean()
        return {"loss": float(loss), "accuracy": float((probabilities.argmax(axis=1) == classes).mean())}

    def sample(self, model: Classifier) -> str:
        """Nothing to show."""
        return ""


@torch.inference_mode()
def predict(model: Classifier, rows: Sequence[Sequence[int]], fill: int, batch_size: int = 64) -> np.ndarray[Any, Any]:
    """(N, C) probabilities of encoded texts, alike lengths together."""
    model.eval()
    result = np.zeros((len(rows), len(model.labels)))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        ids, lengths = pad([rows[i] for i in chosen], fill)
        logits = model(ids.to(model.device), lengths.to(model.device))
        result[chosen] = logits.float().softmax(dim=1).cpu().numpy()
    return result
