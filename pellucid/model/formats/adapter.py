"""A LoRA adapter as `peft` writes it, ours or another's, made part of the weights that it belongs to.

W + (alpha / rank) B A, in the shape that our table of the format gives: where GPT-2 has queries, keys and values in one
matrix, an adapter does, too. Tensors that stand in the adapter whole (an embedding that grew, a head) take the place of
the model's own.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pellucid.config import ModelConfig
from pellucid.model.formats import of_family
from pellucid.model.formats.gpt2 import Entry
from pellucid.model.formats.tensor_files import read_strict_json
from pellucid.runtime import DataError, problem, shown

SETTINGS, TENSORS = "adapter_config.json", "adapter_model.safetensors"
OUTER = "base_model.model."
_MEANT: dict[str, Any] = {"peft_type": "LORA", "bias": "none", "use_dora": False}  # others compute something else
_ADVICE = "Merge it with the tool that made it, then import the merged folder."


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / SETTINGS).is_file() and not (folder / "config.json").is_file()


def adapter_settings(folder: Path) -> dict[str, Any]:
    """adapter_config.json, found to be of a kind that can be merged. DataError names what is not."""
    settings = read_strict_json(folder / SETTINGS)
    if not isinstance(settings, dict):
        raise DataError(problem(folder / SETTINGS, "no JSON object", "an adapter's settings", "Give another folder."))
    for key, meant in _MEANT.items():
        if settings.get(key, meant) != meant:
            raise DataError(problem(folder / SETTINGS, f"{key} {settings[key]!r}", repr(meant), _ADVICE))
    if not isinstance(settings.get("base_model_name_or_path"), str):
        raise DataError(problem(folder / SETTINGS, "no base_model_name_or_path", "the model's name", "Add it."))
    return settings


@torch.no_grad()
def merge_adapter(folder: Path, config: ModelConfig, weights: dict[str, Tensor]) -> ModelConfig:
    """Change `weights`, a model's in our names, in place; the config says how many tokens there are then."""
    settings, tensors = adapter_settings(folder), _tensors(folder / TENSORS)
    form = of_family(config.family)
    entries: dict[str, Entry] = {}
    for entry in form.table(config):
        entries[entry.theirs] = entries[form.PREFIX + entry.theirs] = entry
    for name in sorted(tensors):
        where = f"{folder / TENSORS}, {name}"
        inner = name.removeprefix(OUTER)
        if inner.endswith(".lora_A.weight"):
            module = inner.removesuffix(".lora_A.weight")
            b = tensors.get(f"{OUTER}{module}.lora_B.weight")
            found = entries.get(f"{module}.weight")
            if found is None or b is None:
                raise DataError(problem(where, "a layer that the model has not", "one of its own", _ADVICE))
            _add(weights, found, tensors[name], b, _scale(settings, module, len(tensors[name])), where)
        elif not inner.endswith(".lora_B.weight"):
            _replace(weights, entries.get(inner.replace(".modules_to_save", "")), inner, tensors[name], where)
    size, output = len(weights["token_embedding.weight"]), weights.get("output_layer.weight")
    if output is not None and len(output) < size:  # an adapter that added tokens to an untied model
        mean = output.mean(dim=0, keepdim=True)
        weights["output_layer.weight"] = torch.cat([output, mean.expand(size - len(output), -1)])
    return replace(config, vocab_size=size)


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        return {name: tensor.float() for name, tensor in load_file(file).items()}
    except (OSError, SafetensorError) as error:
        advice = "Is the folder whole? An adapter has adapter_config.json and adapter_model.safetensors."
        raise DataError(problem(file, f"no tensors that can be read ({error})", "an adapter's", advice)) from error


def _scale(settings: dict[str, Any], module: str, rows: int) -> float:
    """alpha / rank of one layer whose A has so many rows; `alpha_pattern` names layers by the ends of their names.

    To peft these names are regular expressions. Others than plain names are refused: they may take any time to match.
    """
    named = settings.get("alpha_pattern") or {}
    if odd := next((name for name in named if not re.fullmatch(r"[\w.]+", name)), None):
        raise DataError(problem(SETTINGS, f"alpha_pattern {shown(odd)!r}", "names of layers", _ADVICE))
    fitting = [value for name, value in named.items() if module == name or module.endswith(f".{name}")]
    alpha = fitting[0] if fitting else settings.get("lora_alpha", 8)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha < math.inf:
        raise DataError(problem(SETTINGS, f"lora_alpha {alpha!r}", "a number above 0", "Mend it."))
    return alpha / (math.sqrt(rows) if settings.get("use_rslora") else rows)


def _add(weights: dict[str, Tensor], entry: Entry, a: Tensor, b: Tensor, scale: float, where: str) -> None:
    parts = [weights[name] for name in entry.ours]
    rows, columns = sum(map(len, parts)), parts[0].shape[-1]
    if a.dim() != 2 or b.shape != (rows, len(a)) or a.shape[1] != columns:
        found = f"matrices {tuple(b.shape)} and {tuple(a.shape)}"
        raise DataError(problem(where, found, f"a product of {(rows, columns)}", "It belongs to another model."))
    added = torch.split(b @ a * scale, [len(part) for part in parts])
    for name, part, more in zip(entry.ours, parts, added, strict=True):
        weights[name] = part + more.to(part.dtype)


def _replace(weights: dict[str, Tensor], entry: Entry | None, inner: str, tensor: Tensor, where: str) -> None:
    head = inner.replace(".modules_to_save", "") == "score.weight"
    if entry is None and not head:
        raise DataError(problem(where, "a tensor that the model has not", "one of its own", _ADVICE))
    if entry is not None and (len(entry.ours) > 1 or entry.transposed):
        raise DataError(problem(where, "a whole layer", "low-rank matrices, an embedding or a head", _ADVICE))
    ours = "head" if entry is None else entry.ours[0]
    old = weights.get(ours)
    if old is not None and (tensor.dim() != old.dim() or tensor.shape[1:] != old.shape[1:]):
        found = f"the shape {tuple(tensor.shape)}"
        raise DataError(problem(where, found, f"{tuple(old.shape)}, but for the first", "It is another model's."))
    weights[ours] = tensor
