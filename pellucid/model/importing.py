"""`pellucid import`: a model from the hub, a folder or OpenAI's TensorFlow checkpoint becomes a run folder of ours.

What was written is opened again, and every tensor compared, before the folder takes its place.
"""

from __future__ import annotations

import json
import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pellucid import hub
from pellucid.config import ModelConfig, as_dict
from pellucid.model.formats.adapter import adapter_settings, is_adapter, merge_adapter
from pellucid.model.formats.folder import (
    INDEX,
    PICKLED,
    UNPICKLE,
    WEIGHTS,
    model_files,
    read_model_folder,
    write_model_folder,
)
from pellucid.model.formats.tensor_files import read_strict_json
from pellucid.model.gpt import GPT
from pellucid.runtime import (
    LITTER,
    ConfigError,
    DataError,
    PellucidError,
    atomic_folder,
    inform,
    problem,
    sha256,
    terminal,
    write_json,
    write_run,
)
from pellucid.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pellucid.options import Import

CARRIED = ("bos_token_id", "eos_token_id", "pad_token_id", "id2label", "label2id", "num_labels", "problem_type")
TOKENIZER_FILES = (*hub.TOKENIZER_FILES, "encoder.json", "vocab.bpe", "special_tokens_map.json")


@dataclass
class Found:
    """A model as it was read: where it came from, and all that a run folder needs of it."""

    source: str
    revision: str
    folder: Path
    config: ModelConfig
    weights: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)


def import_model(options: Import) -> tuple[dict[str, Any], str]:
    """Do what `pellucid import` says. PellucidError names what is missing, damaged or refused."""
    out = options.out
    check_out(out)
    waiting = out.parent / f".{out.name}.download"
    found = find(options.what, options.revision, waiting, options.base)
    with atomic_folder(out) as folder:
        tokens = write_tokenizer(found, folder)
        head = found.weights.pop("head", None)
        extra = {key: found.settings[key] for key in CARRIED if key in found.settings}
        write_model_folder(folder, found.config, found.weights, {**end_ids(tokens), **extra}, head)
        if head is not None:
            found.weights["head"] = head
        expected = fingerprints(found.weights)
        found.weights.clear()
        check_written(folder, expected)
        record = {**as_dict(options), "source": found.source, "revision": found.revision}
        written = {file.name: sha256(file) for file in sorted(folder.iterdir())}
        write_run(folder, "import", {**record, "files": written}, source_hashes(found.folder))
    shutil.rmtree(waiting, ignore_errors=True)
    return summary(out, found, len(expected), tokens)


def check_out(out: Path) -> None:
    """A folder that holds something else than what an earlier import wrote is not written over."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        record = json.loads((out / "run.json").read_bytes())
        written = {"run.json", *record["config"]["files"]} if record["verb"] == "import" else set()
    except (OSError, ValueError, KeyError, TypeError):
        written = set()
    if not written:
        raise ConfigError(problem(out, "files of something else", "a new folder", "Give another --out."))
    if strangers := sorted({path.name for path in out.iterdir()} - written - LITTER):
        found = f"{strangers[0]}, which no import wrote"
        raise ConfigError(problem(out, found, "an import alone", "Move it, or give another --out."))


# ---------------------------------------------------------------- finding


def find(what: str, revision: str, waiting: Path, base: str = "") -> Found:
    """Read the model that `what` names: a folder here, or else a model on the hub, which is fetched into `waiting`."""
    path = Path(what)
    if path.is_dir() and is_adapter(path):
        return merged(path, base, revision, waiting)
    if base:
        raise ConfigError(problem("--base", repr(base), "none, but for an adapter's folder", "Leave it out."))
    if path.is_dir():
        if revision:
            raise ConfigError(problem("--revision", revision, "none, for a folder", "Leave it out."))
        return read_folder(path)
    if path.is_file():
        pickled = any(path.match(pattern) for pattern in PICKLED)
        advice = f"It is pickled, and opening it could run any program. {UNPICKLE}" if pickled else "Give its folder."
        raise DataError(problem(path, "a file", "a model's folder, or a model's name on the hub", advice))
    repo = hub.repo_of(what)
    if repo is None:
        expected = f"a folder, {', '.join(hub.NAMES)}, or a model on the hub as owner/name"
        raise DataError(problem(what, "no such folder", expected, "Check the path or the name."))
    if terminal().is_terminal:
        inform(f"{repo}: looking it up on the hub")
    folder, commit = hub.fetch(repo, revision, waiting, model_files)
    config, weights, settings = read_model_folder(folder)
    return Found(repo, commit, folder, config, weights, settings)


def merged(adapter: Path, base: str, revision: str, waiting: Path) -> Found:
    """The model that an adapter belongs to, with the adapter as part of it; a tokenizer of the adapter's goes first."""
    name = base or adapter_settings(adapter)["base_model_name_or_path"]
    if is_adapter(Path(name)):
        advice = "Name that model with --base."
        raise DataError(problem(adapter, f"an adapter to {name}, which is one itself", "one to a whole model", advice))
    found = find(name, revision, waiting)
    found.config = merge_adapter(adapter, found.config, found.weights)
    found.source = f"{adapter.resolve()} with {found.source}"
    if any((adapter / name).is_file() for name in TOKENIZER_FILES):
        found.folder = adapter
    return found


def read_folder(folder: Path) -> Found:
    """A folder of transformers' or ours, or OpenAI's with a TensorFlow checkpoint."""
    source = str(folder.resolve())
    if not (folder / "config.json").is_file() and ((folder / "hparams.json").is_file() or any(folder.glob("*.index"))):
        from pellucid.model.formats.tensorflow import read_tensorflow_folder

        return Found(source, "", folder, *read_tensorflow_folder(folder))
    return Found(source, "", folder, *read_model_folder(folder))


def source_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that was read or may have been."""
    names = {"config.json", "generation_config.json", "hparams.json", "checkpoint", WEIGHTS, INDEX, *TOKENIZER_FILES}
    weights = {*folder.glob("*.safetensors"), *folder.glob("*.ckpt.*")}
    files = sorted(file for file in folder.iterdir() if file.is_file() and (file.name in names or file in weights))
    return {file.name: sha256(file) for file in files}


# ---------------------------------------------------------------- writing


def write_tokenizer(found: Found, folder: Path) -> Tokenizer | None:
    """The tokenizer in our order; where we cannot use it, its files as they are, and that is said."""
    there = [found.folder / name for name in TOKENIZER_FILES if (found.folder / name).is_file()]
    generation = found.folder / "generation_config.json"
    if generation.is_file():
        write_json(folder / generation.name, read_strict_json(generation))
    if not there:
        inform(f"{found.source}: there is no tokenizer; put tokenizer.json into the run folder before you use text.")
        return None
    try:
        tokenizer = Tokenizer.load(found.folder)
    except PellucidError as error:
        inform(f"{error} The weights are imported, and the tokenizer's files kept as they are for other tools.")
        copy_files(there, folder)
        return None
    if tokenizer.vocab_size > found.config.vocab_size:
        gives, knows = f"a tokenizer of {tokenizer.vocab_size:,} tokens", f"at most {found.config.vocab_size:,}"
        advice = "They don't belong together; take the tokenizer that the model was trained with."
        raise DataError(problem(found.source, gives, f"{knows}, which the model knows", advice))
    if tokenizer.model_max_length is None:
        tokenizer.model_max_length = found.config.context_length
    if tokenizer.kind == "foreign":
        copy_files(there, folder)
    else:
        tokenizer.save(folder)
    return tokenizer


def copy_files(files: list[Path], folder: Path) -> None:
    """Put files into a folder as they are."""
    for file in files:
        shutil.copyfile(file, folder / file.name)


def end_ids(tokenizer: Tokenizer | None) -> dict[str, int]:
    """The end of a text as config.json says it, for a source that says nothing."""
    if tokenizer is None or tokenizer.end_of_text_name not in tokenizer.special_tokens:
        return {}
    return {"bos_token_id": tokenizer.begin_of_text, "eos_token_id": tokenizer.end_of_text}


# ---------------------------------------------------------------- checking


def fingerprints(weights: dict[str, Tensor]) -> dict[str, tuple[Any, ...]]:
    """Shape and checksum of each tensor's bytes."""
    return {name: (*tensor.shape, zlib.crc32(tensor.contiguous().numpy().data)) for name, tensor in weights.items()}


def check_written(folder: Path, expected: dict[str, tuple[Any, ...]]) -> None:
    """Open the folder as every verb does: the same tensors bit by bit, and logits that are numbers."""
    _, again, _ = read_model_folder(folder)
    found = fingerprints(again)
    again.clear()
    if odd := [name for name in expected if found.get(name) != expected[name]]:
        advice = "The disk or memory may be broken; nothing was kept. Try again, or on another disk."
        raise DataError(problem(folder, f"other numbers in {odd[0]} than were written", "the same", advice))
    model = GPT.load(folder)
    ids = torch.arange(min(8, model.config.context_length))[None] % model.config.vocab_size
    with torch.inference_mode():
        if not torch.isfinite(model(ids)).all():
            advice = "The model's weights are damaged; take them from another place."
            raise DataError(problem(folder, "logits that are no numbers", "finite ones", advice))


def summary(out: Path, found: Found, tensors: int, tokenizer: Tokenizer | None) -> tuple[dict[str, Any], str]:
    """What to print: as an object, and as text."""
    result = {
        "run": str(out),
        "source": found.source,
        "revision": found.revision,
        "family": found.config.family,
        "config": as_dict(found.config),
        "tensors": tensors,
        "tokens": None if tokenizer is None else tokenizer.vocab_size,
    }
    commit = f" at {found.revision[:12]}" if found.revision else ""
    model = f"{found.config.n_layers} layers, width {found.config.d_model}, {found.config.vocab_size:,} tokens"
    text = (
        f"{out}: {found.source}{commit}, {found.config.family} family, {model}.\n"
        f"{tensors} tensors written, read again and the same bit by bit."
    )
    return result, text
