"""A model folder: config.json and safetensors, one file or shards with an index, as transformers reads and writes them.

Tensors come in one after the other, so that reading takes little more memory than the weights do. Pickled weights are
refused: opening one can run any program that its maker wrote into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor

from pellucid.compute import one_thread
from pellucid.config import ModelConfig
from pellucid.hub import TOKENIZER_FILES
from pellucid.model.formats import MODEL_TYPES, is_classifier, of_family
from pellucid.model.formats.adapter import is_adapter
from pellucid.model.formats.gpt2 import Entry
from pellucid.model.formats.quantised import QUANTISED, Quantised, quantised_in_pieces, read_quantised
from pellucid.model.formats.tensor_files import (
    FLOATS,
    Piece,
    Stored,
    damaged,
    read_header,
    read_strict_json,
    rows_of,
    same,
)
from pellucid.runtime import DataError, atomic_file, inform, problem, shown, write_json
from pellucid.text.tokenizer import Tokenizer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
HEAD = "score.weight"  # a classifier's
NO_WEIGHTS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # causal masks and such, in old files
PICKLED = ("*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt", "*.pkl")
UNPICKLE = (
    "Take a folder with safetensors, or turn this one into one with transformers, if you trust its maker: "
    "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)."
)
Weight = TypeVar("Weight", bound=Tensor | Quantised)
MOST_LAYERS = 10_000
LINE = 16  # numbers in a line of the cache: a matrix is turned so many of its rows at a time
ADVICE = "The folder is damaged or of another architecture."


def write_model_folder(
    folder: Path,
    config: ModelConfig,
    weights: dict[str, Tensor],
    extra: dict[str, Any] | None = None,
    head: Tensor | None = None,
) -> None:
    """Write a language model, or with `head` (classes × d_model) a sequence classifier."""
    form = of_family(config.family)
    theirs = form.to_theirs(weights, config)
    if head is not None:
        theirs[HEAD] = head.contiguous()
        theirs.pop("lm_head.weight", None)  # a classifier has no logits over the vocabulary
    settings = form.config_to_theirs(config)
    names = MODEL_TYPES[settings["model_type"]]
    architecture = names.language_model if head is None else names.classifier
    tensors = {name: tensor.detach().float().cpu() for name, tensor in theirs.items()}
    with atomic_file(folder / WEIGHTS) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    (folder / INDEX).unlink(missing_ok=True)
    write_json(folder / "config.json", {"architectures": [architecture], **settings, **(extra or {})})


def read_model_folder(folder: Path) -> tuple[ModelConfig, dict[str, Tensor], dict[str, Any]]:
    """Config, weights under our names, and config.json itself. A classifier's head is the weight named `head`.

    At its peak this takes little more memory than the weights in float32. DataError names what is wrong.
    """
    config, found, settings = read_as_kept(folder, as_it_is)
    weights: dict[str, Tensor] = {}
    for name in list(found):
        weight = found.pop(name)
        weights[name] = weight.plain() if isinstance(weight, Quantised) else weight
    return config, weights, settings


def read_as_kept(
    folder: Path, each: Callable[[str, Tensor], Tensor | Quantised]
) -> tuple[ModelConfig, dict[str, Tensor | Quantised], dict[str, Any]]:
    """As `read_model_folder`, but quantised matrices stay so, and `each` float32 one becomes what is made of it."""
    folder = Path(folder)
    settings = read_settings(folder)
    form, config = read_config(settings, folder / "config.json")
    if is_quantised(folder):
        return config, read_quantised(folder, shapes_of(form, config)), settings
    stored, where = find_tensors(folder)
    head = stored.pop(HEAD, None)
    weights = read_weights(form, config, stored, where, each)
    if head is not None:
        check_shape(HEAD, head, (head.shape[0] if head.shape else 0, config.d_model), where)
        weights["head"] = _read(Entry(HEAD, ("head",)), head, where)[0]
    return config, weights, settings


def read_in_pieces(folder: Path) -> tuple[ModelConfig, Iterator[Piece]]:
    """As `read_as_kept`, but a few rows of a weight at a time: for who puts them into another place at once.

    A piece is gone when the next comes. A classifier's head is left out. DataError may come with any piece.
    """
    form, config = read_config(read_settings(folder), folder / "config.json")
    if is_quantised(folder):
        return config, quantised_in_pieces(folder, shapes_of(form, config))
    stored, where = find_tensors(folder)
    stored.pop(HEAD, None)
    return config, _in_pieces(match(form, config, stored, where), where)


def is_quantised(folder: Path) -> bool:
    """Whether a folder's weights are kept in few bits."""
    return (folder / QUANTISED).is_file() and not (folder / WEIGHTS).is_file()


def as_it_is(name: str, weight: Tensor) -> Tensor:
    """Each weight in float32, whatever it is called."""
    return weight


def shapes_of(form: ModuleType, config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each weight under our names."""
    shapes: dict[str, tuple[int, ...]] = {}
    for entry in form.table(config):
        first, *rest = form.shape_of(entry, config)
        shape = (rest[0], first) if entry.transposed else (first, *rest)
        shapes |= dict.fromkeys(entry.ours, (shape[0] // len(entry.ours), *shape[1:]))
    return shapes


# ---------------------------------------------------------------- config.json


def read_settings(folder: Path) -> dict[str, Any]:
    """config.json of a model folder."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        advice = "Check the path, or make a model with `pellucid quickstart` or `pellucid pretrain`."
        raise DataError(problem(folder, found, "a run folder", advice))
    if not (folder / "config.json").is_file():
        adapter = next((place for place in (folder, folder / "adapter") if is_adapter(place)), None)
        advice = "Give a model's folder."
        if adapter is not None:
            advice = f"There is an adapter alone; make a model of it: pellucid import {adapter} --out RUN"
        raise DataError(problem(folder, "no config.json", "a run folder with config.json", advice))
    settings = read_strict_json(folder / "config.json")
    if not isinstance(settings, dict):
        raise DataError(problem(folder / "config.json", "no JSON object", "a JSON object", "Make the folder again."))
    return settings


def say_if_classifier(folder: Path) -> None:
    """A line for who asks a classifier for next tokens: it was trained for others."""
    if (folder / "config.json").is_file() and is_classifier(read_settings(folder)):
        inform(
            f"{folder} is a classifier: this is the language model in it, which was trained to tell labels apart, and "
            "not to write. `pellucid classify` gives its labels."
        )


def read_config(settings: dict[str, Any], where: Path) -> tuple[ModuleType, ModelConfig]:
    """The format that knows this config.json, and our config. DataError where none does, or a value is impossible."""
    name = settings.get("model_type")
    if not isinstance(name, str) or name not in MODEL_TYPES:
        known = ", ".join(map(repr, MODEL_TYPES))
        raise DataError(problem(where, f"model_type {shown(repr(name))}", known, "Give a folder of one of these."))
    for key in ("n_layer", "num_hidden_layers"):  # before a table of that length is made
        if isinstance(settings.get(key), int) and settings[key] > MOST_LAYERS:
            found = f"{key} {shown(settings[key])}"
            raise DataError(problem(where, found, f"at most {MOST_LAYERS:,}", "The file is damaged."))
    form = MODEL_TYPES[name].load()
    try:
        config: ModelConfig = form.config_to_ours(settings, str(where))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        found = f"a broken setting ({shown(repr(error))})"
        raise DataError(problem(where, found, f"{name}'s settings", "The file is damaged.")) from error
    epsilon: object = config.norm_eps
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
        found = f"norm_eps {shown(repr(epsilon))}"
        raise DataError(problem(where, found, "a small number above 0", "Use a folder as its maker released it."))
    return form, config


# ---------------------------------------------------------------- files


def find_tensors(folder: Path) -> tuple[dict[str, Stored], str]:
    """Where each tensor of a folder lies, from one file or from shards, and what to call the source in errors."""
    if (folder / WEIGHTS).is_file():
        return read_header(folder / WEIGHTS), str(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return read_shards(folder), str(folder / INDEX)
    pickled = sorted(file for pattern in PICKLED for file in folder.glob(pattern))
    advice = (
        f"{pickled[0].name} is pickled, and opening it could run any program. {UNPICKLE}"
        if pickled
        else "The training may have been stopped before its first save: run it again with --resume."
    )
    raise DataError(problem(folder, f"no {WEIGHTS}", "the model's weights", advice))


def model_files(where: str, names: set[str], take: Callable[[str], Path]) -> None:
    """Which files of a model on a hub a folder of ours needs: `take` fetches one. Pickled weights are refused."""
    for name in ("config.json", "generation_config.json", *TOKENIZER_FILES):
        if name in names:
            take(name)
    if WEIGHTS in names:
        take(WEIGHTS)
        return
    if INDEX in names:
        for name in sorted(set(shard_names(take(INDEX)).values())):
            take(name)
        return
    pickled = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")))
    found = f"no {WEIGHTS}" + (f", but {shown(pickled[0])}" if pickled else "")
    advice = f"Pickled weights could run any program. {UNPICKLE} Or look for another --revision, such as refs/pr/1."
    raise DataError(problem(where, found, "weights as safetensors", advice))


def shard_names(index: Path) -> dict[str, str]:
    """Tensor → file, as an index says it; each file stands beside the index."""
    content = read_strict_json(index)
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names:
        damaged(index, "no weight_map", "an object: tensor to file")
    for file in set(map(str, names.values())):
        if Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
            damaged(index, f"the file name {shown(file)!r}", "a safetensors file beside the index")
    return {name: str(file) for name, file in names.items()}


def read_shards(folder: Path) -> dict[str, Stored]:
    """Where each tensor of a sharded folder lies. DataError where index and files don't agree."""
    names = shard_names(folder / INDEX)
    result: dict[str, Stored] = {}
    for file in sorted(set(names.values())):
        if not (folder / file).is_file():
            advice = "Copy or download it, too; all files of the index are needed."
            raise DataError(problem(folder / INDEX, f"no file {shown(file)}", "it beside the index", advice))
        held = read_header(folder / file)
        listed = {name for name, place in names.items() if place == file}
        if odd := held.keys() ^ listed:
            what = "in the index, but not in" if min(odd) in listed else "not in the index, but in"
            damaged(folder / INDEX, f"the tensor {shown(min(odd))} {what} {file}", "index and files that agree")
        result.update(held)
    return result


# ---------------------------------------------------------------- weights


def read_weights(
    form: ModuleType,
    config: ModelConfig,
    stored: dict[str, Stored],
    where: str,
    each: Callable[[str, Tensor], Weight],
) -> dict[str, Weight]:
    """The tensors of a file as our state dict, what `each` makes of one; a missing, extra, misshapen, NaN one is named.

    The largest comes first, so that what reading takes beside it never adds to the peak.
    """
    found = match(form, config, stored, where)
    weights: dict[str, Weight] = {}
    for entry, place in sorted(found, key=lambda item: -item[1].nbytes):
        for name, weight in zip(entry.ours, _read(entry, place, where), strict=True):
            weights[name] = each(name, weight)
    return {name: weights[name] for entry, _ in found for name in entry.ours}


def match(form: ModuleType, config: ModelConfig, stored: dict[str, Stored], where: str) -> list[tuple[Entry, Stored]]:
    """Each entry of the model's table with the tensor that holds it, all of the right shape, and none left over."""
    prefix: str = form.PREFIX
    rest: dict[str, Stored] = {}
    for name, place in stored.items():
        if not name.endswith(NO_WEIGHTS) and rest.setdefault(bare := name.removeprefix(prefix), place) is not place:
            raise DataError(problem(where, f"{shown(bare)} with and without {prefix!r}", "one of the two", ADVICE))
    pairs = []
    for entry in form.table(config):
        shape = form.shape_of(entry, config)
        found = rest.pop(entry.theirs.removeprefix(prefix), None)
        if found is None:
            raise DataError(problem(where, f"no tensor {entry.theirs}", f"one of shape {shape}", ADVICE))
        check_shape(entry.theirs, found, shape, where)
        pairs.append((entry, found))
    _drop_tied_output(rest, pairs, where)
    if rest:
        advice = "Remove it, or give a folder as its maker released it."
        raise DataError(problem(where, f"unknown tensor {shown(min(rest))}", "only the model's own", advice))
    return pairs


def _drop_tied_output(rest: dict[str, Stored], pairs: list[tuple[Entry, Stored]], where: str) -> None:
    """A file may hold the output layer that is the token embedding a second time; then the numbers must be the same."""
    output = rest.pop("lm_head.weight", None)
    if output is None:
        return
    entry, embedding = next(pair for pair in pairs if pair[0].ours == ("token_embedding.weight",))
    if output.dtype not in FLOATS or not same(output, embedding):
        advice = "A model with an output layer of its own is another architecture."
        raise DataError(problem(where, f"lm_head.weight that differs from {entry.theirs}", "the same numbers", advice))


def check_shape(name: str, found: Stored, shape: tuple[int, ...], where: str) -> None:
    """DataError for a tensor of another shape, or of a precision that weights are not kept in."""
    if found.shape != shape or 0 in shape:
        what = f"tensor {name} of shape {shown(found.shape)}"
        raise DataError(problem(where, what, f"shape {shape}", ADVICE))
    if found.dtype not in FLOATS:
        what = f"tensor {name} of dtype {found.dtype}"
        raise DataError(problem(where, what, ", ".join(FLOATS), "Take the model in one of these precisions."))


def check_fits(config: ModelConfig, tokenizer: Tokenizer, run: Path) -> None:
    """DataError where a tokenizer has tokens that the model in `run` does not know."""
    if tokenizer.vocab_size > config.vocab_size:
        found = f"a tokenizer of {tokenizer.vocab_size:,} tokens"
        expected = f"at most {config.vocab_size:,}, which the model knows"
        raise DataError(problem(run, found, expected, "Take the tokenizer that the model was trained with."))


def _in_pieces(found: list[tuple[Entry, Stored]], where: str) -> Iterator[Piece]:
    """What has to be turned or cut comes as a whole weight, the rest as it is read."""
    for entry, place in found:
        if entry.transposed or len(entry.ours) > 1:
            for name, weight in zip(entry.ours, _read(entry, place, where), strict=True):
                yield Piece(name, 0, weight)
        else:
            for rows, values in rows_of(place):
                yield Piece(entry.ours[0], rows.start, _finite(values, entry, where).float())


@one_thread()
def _read(entry: Entry, stored: Stored, where: str) -> list[Tensor]:
    """One tensor of theirs as ours, in float32: turned, and cut where several of ours stand side by side in it.

    It waits for the memory, so that more threads would do little, and beside other programs take four times as long.
    """
    count = len(entry.ours)
    if not entry.transposed:
        whole = torch.empty(stored.shape, device="cpu", dtype=torch.float32)
        for rows, values in rows_of(stored):
            whole[rows] = _finite(values, entry, where)
        return [whole] if count == 1 else [part.clone() for part in whole.chunk(count)]
    width = stored.shape[1] // count
    parts = [torch.empty(width, stored.shape[0], device="cpu", dtype=torch.float32) for _ in range(count)]
    for rows, values in rows_of(stored):
        sound = _finite(values, entry, where)
        for start in range(0, len(sound), LINE):
            columns = slice(rows.start + start, min(rows.start + start + LINE, rows.stop))
            for part, share in zip(parts, sound[start : start + LINE].chunk(count, dim=1), strict=True):
                part[:, columns] = share.mT
    return parts


@one_thread()
def _finite(values: Tensor, entry: Entry, where: str) -> Tensor:
    """The same values, found to hold no NaN and no infinity."""
    if not all(math.isfinite(limit) for limit in torch.aminmax(values)):
        raise DataError(problem(where, f"NaN or infinity in {entry.theirs}", "finite numbers", ADVICE))
    return values
