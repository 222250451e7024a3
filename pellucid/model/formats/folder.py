"""A model folder: config.json and model.safetensors, as transformers reads and writes them.

Pickled weights are refused: opening one can run any program that its maker wrote into it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pellucid.config import ModelConfig
from pellucid.model.formats import gpt2
from pellucid.runtime import DataError, atomic_file, problem, read_json, write_json

ARCHITECTURES = {"language_model": "GPT2LMHeadModel", "classifier": "GPT2ForSequenceClassification"}


def write_model_folder(
    folder: Path,
    config: ModelConfig,
    weights: dict[str, Tensor],
    extra: dict[str, Any] | None = None,
    head: Tensor | None = None,
) -> None:
    """Write a language model, or with `head` (classes × d_model) a sequence classifier."""
    theirs = gpt2.to_theirs(weights, config)
    if head is not None:
        theirs["score.weight"] = head.contiguous()
    architecture = ARCHITECTURES["language_model" if head is None else "classifier"]
    settings = {"architectures": [architecture], **gpt2.config_to_theirs(config), **(extra or {})}
    tensors = {name: tensor.detach().float().cpu() for name, tensor in theirs.items()}
    with atomic_file(folder / "model.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    write_json(folder / "config.json", settings)


def read_model_folder(folder: Path) -> tuple[ModelConfig, dict[str, Tensor], dict[str, Any]]:
    """Config, weights under our names, and config.json itself. A classifier's head is the weight named `head`."""
    settings = read_settings(folder)
    where = str(folder / "config.json")
    if settings.get("model_type") != "gpt2":
        found = f"model_type {settings.get('model_type')!r}"
        raise DataError(problem(where, found, "'gpt2'", "Give a folder of the GPT-2 architecture."))
    config = gpt2.config_to_ours(settings, where)
    path = folder / "model.safetensors"
    if not path.is_file():
        pickled = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))
        advice = (
            f"{pickled[0].name} is pickled, and opening it could run any program. Save it as safetensors first."
            if pickled
            else "The training may have been stopped before its first save: run it again with --resume."
        )
        raise DataError(problem(folder, "no model.safetensors", "the model's weights", advice))
    try:
        theirs = load_file(path)
    except (SafetensorError, OSError, json.JSONDecodeError, ValueError) as error:
        raise DataError(problem(path, f"a damaged file ({error})", "safetensors", "Copy or make it again.")) from error
    head = theirs.pop("score.weight", None)
    floats = {name: tensor.to(torch.float32) for name, tensor in theirs.items()}
    weights = gpt2.to_ours(floats, config, str(path))
    if head is not None:
        weights["head"] = head.to(torch.float32)
    return config, weights, settings


def read_settings(folder: Path) -> dict[str, Any]:
    """config.json of a model folder."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        advice = "Check the path, or make a model with `pellucid quickstart` or `pellucid pretrain`."
        raise DataError(problem(folder, found, "a run folder", advice))
    if not (folder / "config.json").is_file():
        raise DataError(problem(folder, "no config.json", "a run folder with config.json", "Give a model's folder."))
    settings = read_json(folder / "config.json")
    if not isinstance(settings, dict):
        raise DataError(problem(folder / "config.json", "no JSON object", "a JSON object", "Make the folder again."))
    return settings
