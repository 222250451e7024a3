"""What the ways to finetune have in common: rates by the width of the model, steps, and checks before anything runs."""

from __future__ import annotations

from pathlib import Path

from pellucid.config import FitConfig, ModelConfig
from pellucid.finetune.lora import TARGETS, Lora
from pellucid.model.formats.folder import read_config, read_settings
from pellucid.model.gpt import GPT
from pellucid.options import Finetuning
from pellucid.pretrain.fit import check_no_other_model
from pellucid.runtime import ConfigError, DataError, problem, sha256
from pellucid.text.tokenizer import Tokenizer

# Found by measuring at a width of 96 on the embedded corpus and on SMS messages (docs/performance.md).
CLASSIFY_RATES = {"lr": 1e-3, "matrix_lr": 3e-3, "weight_decay": 0.05}
INSTRUCT_RATES = {"lr": 3.5e-3, "matrix_lr": 0.011, "weight_decay": 0.05}
ADAPTER_RATES = {"lr": 2e-3, "matrix_lr": 2e-3, "weight_decay": 0.0}
PREFER_RATES = {"lr": 2e-4, "matrix_lr": 2e-4, "weight_decay": 0.0}
WIDTH = 160  # up to here the rates hold; wider models take smaller steps


def open_model(run: Path) -> tuple[GPT, Tokenizer]:
    """A model with its tokenizer. DataError where the tokenizer has tokens that the model does not know."""
    model, tokenizer = GPT.load(run), Tokenizer.load(run)
    check_fits(model.config, tokenizer, run)
    return model, tokenizer


def check_fits(config: ModelConfig, tokenizer: Tokenizer, run: Path) -> None:
    """DataError where a tokenizer has tokens that the model in `run` does not know."""
    if tokenizer.vocab_size > config.vocab_size:
        found = f"a tokenizer of {tokenizer.vocab_size:,} tokens"
        expected = f"at most {config.vocab_size:,}, which the model knows"
        raise DataError(problem(run, found, expected, "Take the tokenizer that the model was trained with."))


def rates_of(run: Path, rates: dict[str, float]) -> dict[str, float]:
    """A recipe's rates for the model in `run`: they fall with its width."""
    settings = read_settings(Path(run))
    _, config = read_config(settings, Path(run) / "config.json")
    scale = min(1.0, WIDTH / config.d_model)
    return {**rates, "lr": rates["lr"] * scale, "matrix_lr": rates["matrix_lr"] * scale}


def steps_of(epochs: float, examples: int, batch_size: int) -> int:
    """Optimizer steps of so many passes over the examples."""
    if epochs <= 0 or batch_size < 1:
        found = f"{epochs} epochs and a batch size of {batch_size}"
        raise ConfigError(problem("finetuning", found, "both above 0", "Leave them out for the recipe's."))
    return max(1, round(epochs * examples / batch_size))


def check_out(options: Finetuning) -> None:
    """Refuse to write the finetuned model over the one that it is made of, or over another one."""
    if options.out.resolve() == options.run.resolve():
        advice = "The pretrained model would be lost."
        raise ConfigError(problem("--out", f"the folder of the model itself, {options.out}", "another one", advice))
    check_no_other_model(options.out)


def fit_config(options: Finetuning, epochs: float, examples: int, rates: dict[str, float]) -> FitConfig:
    """The recipe's settings with what the command line asks for; another --lr scales both rates."""
    steps = steps_of(epochs, examples, options.batch_size)
    found = rates_of(options.run, rates)
    scale = options.lr / found["lr"] if options.lr else 1.0
    scaled = {**found, "lr": found["lr"] * scale, "matrix_lr": found["matrix_lr"] * scale}
    adapted = {"optimizer": "adamw"} if options.train == "lora" or rates is PREFER_RATES else {}
    given = {name: getattr(options, name) for name in ("batch_size", "seed", "checkpoint_every", "dtype")}
    return FitConfig(steps=steps, **given, **scaled, **adapted)  # type: ignore[arg-type]


def lora_of(options: Finetuning) -> Lora | None:
    """The adapters that the command line asks for."""
    if options.train != "lora":
        return None
    return Lora(options.lora_rank, options.lora_alpha, options.lora_targets or TARGETS, options.base)


def hash_of(*paths: Path | None) -> dict[str, str]:
    """Name → SHA-256 of the data files (of a folder's files: their names in it)."""
    result: dict[str, str] = {}
    for path in filter(None, paths):
        files = sorted(file for file in path.rglob("*.txt")) if path.is_dir() else [path]
        result |= {str(file.relative_to(path.parent)): sha256(file) for file in files}
    return result
