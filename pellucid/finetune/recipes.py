"""What the ways to finetune have in common: rates by the width of the model, steps, and checks before anything runs."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pellucid.config import FitConfig, as_dict
from pellucid.finetune.lora import TARGETS, Lora
from pellucid.model.formats.folder import check_fits, read_config, read_settings
from pellucid.model.gpt import GPT
from pellucid.options import Finetuning
from pellucid.pretrain.checkpoint import newest_checkpoint
from pellucid.pretrain.distributed import all_or_none, world
from pellucid.pretrain.fit import Begin, check_no_other_model
from pellucid.pretrain.recipe import asked
from pellucid.runtime import ConfigError, DataError, problem, read_json, sha256, write_run
from pellucid.text.tokenizer import Tokenizer

# Found by measuring at a width of 96 on the embedded corpus and on SMS messages (docs/performance.md).
CLASSIFY_RATES = {"lr": 1e-3, "matrix_lr": 3e-3, "weight_decay": 0.05}
INSTRUCT_RATES = {"lr": 3.5e-3, "matrix_lr": 0.011, "weight_decay": 0.05}
ADAPTER_RATES = {"lr": 2e-3, "matrix_lr": 2e-3, "weight_decay": 0.0}
PREFER_RATES = {"lr": 2e-4, "matrix_lr": 2e-4, "weight_decay": 0.0}
BY_ADAMW = (ADAPTER_RATES, PREFER_RATES)  # the others are Muon's
WIDTH = 160  # up to here the rates hold; wider models take smaller steps


def open_model(run: Path) -> tuple[GPT, Tokenizer]:
    """A model with its tokenizer. DataError where the tokenizer has tokens that the model does not know."""
    model, tokenizer = GPT.load(run), Tokenizer.load(run)
    check_fits(model.config, tokenizer, run)
    return model, tokenizer


def rates_of(run: Path, rates: dict[str, float]) -> dict[str, float]:
    """A recipe's rates for the model in `run`: they fall with its width."""
    settings = read_settings(Path(run))
    _, config = read_config(settings, Path(run) / "config.json")
    scale = min(1.0, WIDTH / config.d_model)
    return {**rates, "lr": rates["lr"] * scale, "matrix_lr": rates["matrix_lr"] * scale}


def fit_config(options: Finetuning, rates: dict[str, float]) -> FitConfig:
    """The recipe's settings with what the command line asks for, as yet of one step; another --lr scales both rates.

    ConfigError for what is impossible, for itself, together or here, before anything is read but the model's shape.
    """
    check_out(options)
    if not 0 < options.epochs < math.inf or options.batch_size < 1:
        found = f"{options.epochs} epochs and a batch size of {options.batch_size}"
        raise ConfigError(problem("finetuning", found, "both above 0", "Leave them out for the recipe's."))
    rates = ADAPTER_RATES if lora_of(options) and rates is not PREFER_RATES else rates
    settings = asked(options, "adamw" if rates in BY_ADAMW else "muon")
    found_rates = rates_of(options.run, rates)
    scale = options.lr / found_rates["lr"] if options.lr else 1.0
    scaled = {name: found_rates[name] * scale for name in ("lr", "matrix_lr")}
    return FitConfig(**settings | found_rates | scaled | {"steps": 1})


def with_steps(config: FitConfig, epochs: float, examples: int) -> FitConfig:
    """The same for so many passes over so many examples: at least one step."""
    if config.batch_size > max(examples, Finetuning.batch_size):
        found, expected = f"{config.batch_size:,}", f"at most the {examples:,} examples that there are to train on"
        raise ConfigError(problem("--batch-size", found, expected, "Lower it, or leave it out."))
    return replace(config, steps=max(1, round(epochs * examples / config.batch_size)))


def check_out(options: Finetuning) -> None:
    """Refuse to write the finetuned model over the one that it is made of, or over another one."""
    if options.out.resolve() == options.run.resolve():
        advice = "The pretrained model would be lost."
        raise ConfigError(problem("--out", f"the folder of the model itself, {options.out}", "another one", advice))
    check_no_other_model(options.out)


def lora_of(options: Finetuning) -> Lora | None:
    """The adapters that the command line asks for. ConfigError for what adapters lack, and for what only they have."""
    if options.train == "lora":
        if options.optimizer == "muon":
            advice = "Leave it out."
            raise ConfigError(problem("--optimizer", "muon for LoRA's matrices", "adamw, by which they train", advice))
        return Lora(options.lora_rank, options.lora_alpha, options.lora_targets or TARGETS, options.base)
    names = ("lora_rank", "lora_alpha", "lora_targets", "base")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) != getattr(Finetuning, name)]
    given += [] if getattr(options, "merge", True) else ["--no-merge"]
    if given:
        advice = "Only adapters have that: give --train lora, or leave it out."
        raise ConfigError(problem(", ".join(given), f"--train {options.train}", "--train lora", advice))
    return None


def recorded(verb: str, options: Finetuning, config: FitConfig, resume: bool, *files: Path | None) -> Begin:
    """What writes run.json as the finetuning of `files` begins, with the precision that was settled by then.

    What goes on has to be what was begun: a DataError names the options, the data or the model that differ.
    """
    verb, model, data, begun = f"finetune {verb}", {}, {}, False
    with all_or_none():
        if world().first:
            model, data = hash_of(*files_of(options.run)), hash_of(*files)
            begun = resume and newest_checkpoint(options.out / "training", quiet=True) is not None
            if begun := begun and (options.out / "run.json").is_file():
                check_as_begun(verb, options, config, model, data)

    def begin(config: FitConfig, tried: dict[str, float]) -> None:
        if not begun:
            settings = as_dict(options) | as_dict(config) | {"weights": model}
            write_run(options.out, verb, settings, data)

    return begin


MAY_CHANGE = {
    "out", "resume", "json", "checkpoint_every", "keep", "log", "micro_batch_size", "recompute", "merge",
    "run", "data", "val", "test",  # of files their hashes tell
}  # fmt: skip


def check_as_begun(
    verb: str, options: Finetuning, config: FitConfig, model: dict[str, str], data: dict[str, str]
) -> None:
    """DataError where the run in --out began with something else."""
    record = read_json(options.out / "run.json")
    if record.get("verb") != verb:
        other = f"a run of `pellucid {record.get('verb')}`"
        raise DataError(problem(f"--resume {options.out}", other, f"one of `pellucid {verb}`", "Give another --out."))
    before, now = record.get("config", {}), as_dict(options) | as_dict(config)
    names = {item.name for item in fields(options)} - MAY_CHANGE - ({"dtype"} if options.dtype == "auto" else set())
    found = [
        f"--{name.replace('_', '-')} {now[name]!r}, where it was {before[name]!r}"
        for name in sorted(names)
        if name in before and before[name] != now[name]
    ]
    if not same_files(before.get("weights", model), model):
        found += ["another model"]
    if not same_files(record.get("data", {}), data):
        found += ["other data"]
    if found:
        expected = "what the run began with"
        raise DataError(problem(f"--resume {options.out}", "; ".join(found), expected, "Give that, or another --out."))


def same_files(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether hashes are those of the same contents, whatever the files are called."""
    return list(one.values()) == list(other.values())


def files_of(run: Path) -> list[Path]:
    """What decides how a model is finetuned: its weights, its shape and its tokenizer."""
    return [*sorted(run.glob("*.safetensors")), *(run / name for name in ("config.json", "tokenizer.json"))]


def hash_of(*paths: Path | None) -> dict[str, str]:
    """Name → SHA-256 of the files that are there (of a folder's files: their names in it)."""
    result: dict[str, str] = {}
    for path in filter(None, paths):
        files = sorted(path.rglob("*.txt")) if path.is_dir() else [path] if path.is_file() else []
        for file in files:
            name = str(file.relative_to(path.parent))
            result[str(file) if name in result else name] = sha256(file)
    return result
