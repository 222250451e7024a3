"""A model as one ONNX file: ids (B, T) in, logits (B, T, V) out, for any batch and any length up to the context.

A classifier takes the true lengths (B,) beside the ids and gives logits (B, C). Exported is the readable form of
attention, which is made of plain products; what ONNX Runtime makes of it is compared with the fused form.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from pellucid.finetune.classify import Classifier
from pellucid.model.gpt import GPT
from pellucid.runtime import DataError, problem

MOST_BYTES = 2**31 - 2**24  # a protocol buffer ends at 2 GB
OPSET = 20
LARGEST_DIFFERENCE, RELATIVE = 1e-4, 1e-5  # of logits; the second to the largest of them, where they are large
BATCHES = ((1, 1), (1, 2), (2, 7), (3, 33), (1, 64), (5, 16))  # B, T

Model: TypeAlias = GPT | Classifier


class Agreement(NamedTuple):
    """What ONNX Runtime was compared by, and by how much its logits differ at most."""

    batches: int
    largest_logit: float
    largest_difference: float


class LastVectors(nn.Module):
    """A classifier whose last real token is gathered: indexed by row and place, ONNX would fix the batch's size."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """As `Classifier.forward`."""
        hidden = self.model.gpt.hidden(ids)
        last = (lengths - 1)[:, None, None].expand(-1, 1, hidden.shape[2])
        logits: Tensor = self.model.head(hidden.gather(1, last)[:, 0])
        return logits


def load(run: Path, settings: dict[str, Any], is_classifier: bool) -> tuple[Model, dict[str, str]]:
    """The model, and what the file is to say about it."""
    model: Model = Classifier.load(run) if is_classifier else GPT.load(run)
    gpt = model.gpt if isinstance(model, Classifier) else model
    if gpt.config.context_length < 2:
        expected, advice = "2 or more: the file takes texts of any length up to it", "Export another model."
        raise DataError(problem(run, "a context of 1 token", expected, advice))
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if size > MOST_BYTES:
        found = f"weights of {size / 1e9:.1f} GB"
        raise DataError(problem(run, found, "at most 2 GB, as one ONNX file holds", "Export it with --to gguf."))
    said = {"family": gpt.config.family, "context_length": str(gpt.config.context_length)}
    if isinstance(model, Classifier):
        said["labels"] = "\n".join(model.labels)
    elif isinstance(settings.get("eos_token_id"), int):
        said["eos_token_id"] = str(settings["eos_token_id"])
    return model, said


def inputs(model: Model, batch: int, length: int) -> dict[str, Tensor]:
    """Some input of this size, the same each time."""
    gpt = model.gpt if isinstance(model, Classifier) else model
    dice = torch.Generator().manual_seed(batch * 1000 + length)
    ids = {"ids": torch.randint(gpt.config.vocab_size, (batch, length), generator=dice)}
    if isinstance(model, Classifier):
        ids["lengths"] = torch.randint(1, length + 1, (batch,), generator=dice)
    return ids


def context_of(model: Model) -> int:
    """The longest input."""
    return (model.gpt if isinstance(model, Classifier) else model).config.context_length


def set_fused(model: Model, fused: bool) -> None:
    """Which form of attention computes."""
    for block in (model.gpt if isinstance(model, Classifier) else model).blocks:
        block.attention.fused = fused  # type: ignore[union-attr]


def write_onnx(path: Path, model: Model, said: dict[str, str]) -> None:
    """Trace the model and write its file; `said` becomes the file's metadata, under pellucid.…"""
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=context_of(model))
    example = inputs(model, 2, min(7, context_of(model)))
    sizes: dict[str, Any] = {"ids": {0: batch, 1: length}, "lengths": {0: batch}}
    set_fused(model, False)
    with silence(), torch.inference_mode(False), torch.no_grad():
        program = torch.onnx.export(
            LastVectors(model) if isinstance(model, Classifier) else model,
            tuple(example.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(example),
            output_names=["logits"],
            dynamic_shapes=tuple(sizes[name] for name in example),
        )
        assert program is not None
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # they tell where on this machine each line of our code lies
        program.model.metadata_props.update({f"pellucid.{key}": value for key, value in said.items()})
        program.save(path, external_data=False)
    set_fused(model, True)


def check_onnx(path: Path, model: Model, said: dict[str, str]) -> Agreement:
    """Open the file with ONNX Runtime and compare logits over several batches and lengths. DataError says where not."""
    import onnxruntime

    advice = "The file was not kept. Tell us, with the versions of torch and onnxruntime."
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of kinds of its own, one for each way to fail
        found = f"a file that ONNX Runtime cannot read ({str(error)[:200]})"
        raise DataError(problem(path, found, "ONNX", advice)) from error
    if session.get_modelmeta().custom_metadata_map != {f"pellucid.{key}": value for key, value in said.items()}:
        raise DataError(problem(path, "other metadata", "what was written", advice))
    batches = sorted({(batch, min(length, context_of(model))) for batch, length in BATCHES})
    largest = difference = 0.0
    for batch, length in batches:
        given = inputs(model, batch, length)
        with torch.inference_mode():
            ours = model(*given.values())
        try:
            (found_logits,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in given.items()})
        except Exception as error:
            found = f"no answer from ONNX Runtime for {batch} × {length} ids ({str(error)[:200]})"
            raise DataError(problem(path, found, "logits", advice)) from error
        apart = float((torch.from_numpy(found_logits) - ours).abs().max())
        size = float(ours.abs().max())
        if not apart <= max(LARGEST_DIFFERENCE, RELATIVE * size):  # NaN is no agreement either
            found = f"logits for {batch} × {length} ids that differ by up to {apart:g}"
            raise DataError(problem(path, found, f"at most {max(LARGEST_DIFFERENCE, RELATIVE * size):g}", advice))
        largest, difference = max(largest, size), max(difference, apart)
    return Agreement(len(batches), largest, difference)


@contextmanager
def silence() -> Iterator[None]:
    """torch speaks of libraries that are not there, and warns of its own code."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
