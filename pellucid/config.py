"""Every setting of Pellucid, as dataclasses: the model, the training, and one class for each verb of the command line.

A TOML file fills the same classes (`--config FILE.toml`, `--model FILE.toml`). An unknown key is an error that
suggests the nearest known one, because a misspelt setting that is silently ignored costs a night of training.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from tyro.conf import Positional, arg

from pellucid.runtime import ConfigError, problem

T = TypeVar("T")

# ---------------------------------------------------------------- model and training


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a GPT. What is left at 0 follows from the rest (`d_ff` is 4 × `d_model`)."""

    family: Literal["gpt2"] = "gpt2"
    vocab_size: int = 50257
    context_length: int = 1024
    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    d_ff: int = 0
    dropout: float = 0.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.d_ff == 0:
            object.__setattr__(self, "d_ff", 4 * self.d_model)
        for name in ("vocab_size", "context_length", "d_model", "n_layers", "n_heads", "d_ff"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(problem(f"model setting {name}", repr(value), "a whole number above 0", "Change it."))
        if self.d_model % self.n_heads:
            advice = "Make d_model a multiple of n_heads."
            found = f"d_model {self.d_model} and n_heads {self.n_heads}"
            raise ConfigError(problem("model settings", found, "heads of equal size", advice))
        if not 0 <= self.dropout < 1:
            raise ConfigError(
                problem("model setting dropout", repr(self.dropout), "a number from 0 up to 1", "Change it.")
            )

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_heads


PRESETS: dict[str, ModelConfig] = {
    "laptop": ModelConfig(d_model=96, n_layers=2, n_heads=3, context_length=256),
    "laptop-large": ModelConfig(d_model=320, n_layers=6, n_heads=5, context_length=256),
    "gpt2": ModelConfig(d_model=768, n_layers=12, n_heads=12, dropout=0.1),
    "gpt2-medium": ModelConfig(d_model=1024, n_layers=24, n_heads=16, dropout=0.1),
    "gpt2-large": ModelConfig(d_model=1280, n_layers=36, n_heads=20, dropout=0.1),
    "gpt2-xl": ModelConfig(d_model=1600, n_layers=48, n_heads=25, dropout=0.1),
}


@dataclass(frozen=True)
class FitConfig:
    """What the one training loop needs to know; every task uses the same."""

    steps: int = 0
    """Optimizer steps in all; 0 is as many as fit into the minutes."""
    minutes: float = 0.0
    """Time to train when no steps are given."""
    batch_size: int = 32
    """Examples of one optimizer step."""
    micro_batch_size: int = 0
    """Examples of one forward and backward pass; 0 is the whole batch at once."""
    lr: float = 5e-3
    """Peak learning rate of AdamW: embeddings, biases, norms (and the matrices, when the optimizer is adamw)."""
    matrix_lr: float = 0.03
    """Peak learning rate of Muon: the matrices inside the blocks."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon: Muon for the matrices inside the blocks and AdamW for the rest; adamw: AdamW for all."""
    weight_decay: float = 0.1
    """Decoupled weight decay of the matrices."""
    warmup_share: float = 0.05
    """Share of the steps in which the learning rate rises."""
    decay_share: float = 0.6
    """Share of the steps, at the end, in which the learning rate falls to zero in a straight line."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    seed: int = 0
    """Seed of the data order, the initialisation and dropout."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the matrix products; auto times both on this machine and keeps the faster."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    evaluate_share: float = 0.1
    """Share of the run between evaluations on held-out data."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 is one about every 30 seconds."""

    def __post_init__(self) -> None:
        if self.steps < 1 and not self.minutes > 0:
            raise ConfigError(problem("training", "neither steps nor minutes", "one of them above 0", "Give one."))
        for name in ("batch_size", "lr", "evaluate_share", "clip"):
            if not getattr(self, name) > 0:
                raise ConfigError(problem(f"training, {name}", f"{getattr(self, name)}", "more than 0", "Change it."))


# ---------------------------------------------------------------- one class for each verb


@dataclass(frozen=True)
class Quickstart:
    """All three stages end to end, then a report."""

    out: Path = Path("runs/quickstart")
    """Folder for everything that is made; run again, it goes on where it was."""
    text: Annotated[tuple[Path, ...], arg(metavar="FILE…")] = ()
    """Own text to pretrain on (txt, md, jsonl, folders); without it, the embedded corpus."""
    labels: Path | None = None
    """Own labelled texts for the classifier (csv, tsv, jsonl); without it, the embedded messages."""
    instructions: Path | None = None
    """Own instructions with answers (json, jsonl); without it, the embedded ones."""
    minutes: float = 0.0
    """Time to aim at; more minutes, a better model. 0 is 5.2 with the embedded corpus and 15 with own text."""
    seed: int = 0
    """Seed of everything that is random."""
    json: bool = False
    """Print the report as one JSON object on stdout."""


@dataclass(frozen=True)
class TokenizerTrain:
    """Train a tokenizer on text files and save it in Hugging Face's format."""

    files: Positional[tuple[Path, ...]]
    """Text files or folders."""
    out: Path
    """Folder to write."""
    kind: Literal["bpe", "char", "word"] = "bpe"
    """Byte-level byte pairs, characters or words."""
    vocab_size: int = 4096
    """Size of the vocabulary, special tokens not counted."""
    json: bool = False
    """Print one JSON object on stdout."""


@dataclass(frozen=True)
class TokenizerShow:
    """Show how a text falls into tokens."""

    text: Positional[str]
    """Any text."""
    tokenizer: str = "gpt2"
    """A folder with a tokenizer, or gpt2."""
    json: bool = False
    """Print one JSON object on stdout."""


@dataclass(frozen=True)
class Encode:
    """Turn text into memory-mapped token shards, split into train, val and test by document."""

    files: Positional[tuple[Path, ...]]
    """Text files, jsonl files or folders."""
    out: Path
    """Folder to write."""
    tokenizer: str = "gpt2"
    """A folder with a tokenizer, or gpt2."""
    json: bool = False
    """Print one JSON object on stdout."""


@dataclass(frozen=True)
class Pretrain:
    """Train a GPT from scratch on token shards."""

    data: Path
    """Folder of shards, as written by `pellucid encode`."""
    out: Path
    """Run folder to write: a Hugging Face model folder."""
    model: str = "laptop"
    """A preset (laptop, laptop-large, gpt2, gpt2-medium, gpt2-large, gpt2-xl) or a TOML file with the sizes."""
    steps: int = 0
    """Optimizer steps; 0 is as many as fit into the minutes."""
    minutes: float = 5.0
    """Time to aim at when no steps are given."""
    batch_size: int = 32
    """Windows of one optimizer step."""
    context: int = 0
    """Tokens of one window; 0 is the model's context length."""
    seed: int = 0
    """Seed of the data order, the initialisation and dropout."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon (with AdamW for all but matrices) or adamw."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the matrix products."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 is one about every 30 seconds."""
    resume: bool = False
    """Go on from the newest checkpoint in --out (from the beginning where there is none)."""
    json: bool = False
    """Print one JSON object on stdout."""


@dataclass(frozen=True)
class Evaluate:
    """Loss, perplexity and bits per byte of a model on text, with their spread."""

    run: Positional[Path]
    """Run folder."""
    data: Path
    """Folder of shards (the test split is used) or a text file."""
    json: bool = False
    """Print one JSON object on stdout."""


@dataclass(frozen=True)
class Generate:
    """Continue a text."""

    run: Positional[Path]
    """Run folder."""
    prompt: str
    """The beginning of the text."""
    max_tokens: int = 100
    """Longest continuation, in tokens."""
    temperature: float = 0.8
    """0 always takes the likeliest token; 1 samples from the model's own probabilities."""
    top_k: int = 0
    """Keep the k likeliest tokens only; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together reach this probability."""
    seed: int = 0
    """Same seed, same text, on the same machine."""
    json: bool = False
    """Print one JSON object on stdout: text, tokens, tokens_per_s, first_token_s."""


@dataclass(frozen=True)
class FinetuneClassify:
    """Finetune a model to tell classes of text apart."""

    run: Positional[Path]
    """Run folder of a pretrained model."""
    data: Path
    """csv, tsv or jsonl with a text and a label column."""
    out: Path
    """Run folder to write: a Hugging Face sequence classification folder."""
    epochs: float = 4.0
    """Passes over the training split."""
    batch_size: int = 32
    """Texts of one optimizer step."""
    lr: float = 0.0
    """Peak learning rate; 0 is the recipe's."""
    seed: int = 0
    """Seed of the split and the data order."""
    resume: bool = False
    """Go on from the newest checkpoint in --out."""
    json: bool = False
    """Print one JSON object on stdout."""


@dataclass(frozen=True)
class FinetuneInstruct:
    """Finetune a model to follow instructions."""

    run: Positional[Path]
    """Run folder of a pretrained model."""
    data: Path
    """json or jsonl with instruction, input and output."""
    out: Path
    """Run folder to write."""
    epochs: float = 3.0
    """Passes over the training split."""
    batch_size: int = 32
    """Conversations of one optimizer step."""
    lr: float = 0.0
    """Peak learning rate; 0 is the recipe's."""
    seed: int = 0
    """Seed of the split and the data order."""
    resume: bool = False
    """Go on from the newest checkpoint in --out."""
    json: bool = False
    """Print one JSON object on stdout."""


@dataclass(frozen=True)
class Classify:
    """Say the class of each text, with its probability."""

    run: Positional[Path]
    """Run folder of a classifier."""
    texts: Positional[tuple[str, ...]] = ()
    """The texts."""
    file: Path | None = None
    """A file with a text on each line (- is standard input)."""
    json: bool = False
    """Print one JSON object on stdout."""


@dataclass(frozen=True)
class Chat:
    """Talk with an assistant; works on a pipe too (a line in, a reply out)."""

    run: Positional[Path]
    """Run folder of an assistant."""
    temperature: float = 0.0
    """0 always takes the likeliest token."""
    max_tokens: int = 200
    """Longest reply, in tokens."""
    seed: int = 0
    """Same seed, same replies, on the same machine."""
    json: bool = False
    """Read one message from standard input and print one JSON object on stdout."""


@dataclass(frozen=True)
class See:
    """Look inside a model: one offline HTML page of tokens, attention, layers and next words."""

    run: Positional[Path]
    """Run folder."""
    text: str = ""
    """The text to look at; without it, one of the run's own samples."""
    html: Path | None = None
    """File to write; without it, see.html in the run folder."""
    json: bool = False
    """Print the trace as one JSON object on stdout."""


@dataclass(frozen=True)
class Report:
    """One offline HTML page about one or more runs."""

    runs: Positional[tuple[Path, ...]]
    """Run folders."""
    html: Path
    """File to write."""
    json: bool = False
    """Print one JSON object on stdout."""


# ---------------------------------------------------------------- TOML


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; an error names the file and the line."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}. Mend that line.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(problem(path, "bytes that are not UTF-8", "TOML in UTF-8", "Save it as UTF-8.")) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}. Check the path.") from error


def from_dict(kind: type[T], values: dict[str, Any], where: str | Path, **defaults: Any) -> T:
    """Build the dataclass `kind` from `values`, over `defaults`; `where` names the source in errors.

    Unknown keys and values of the wrong type are a ConfigError.
    """
    hints = typing.get_type_hints(kind)
    settings = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}?" if near else f"Known settings: {', '.join(hints)}."
            raise ConfigError(problem(where, f"unknown setting {key!r}", "a known one", hint))
        settings[name] = _checked(value, hints[name], f"{where}, {key}")
    return kind(**{**defaults, **settings})


def _checked(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type that `hint` asks for, or a ConfigError."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in options:
            return value
        raise ConfigError(problem(where, repr(value), " or ".join(map(repr, options)), "Change it."))
    if origin in (types.UnionType, typing.Union):
        hint = next(option for option in options if option is not type(None))
    if origin is tuple:
        return tuple(_checked(item, options[0], where) for item in (value if isinstance(value, list) else [value]))
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigError(problem(where, repr(value), f"a value of type {hint.__name__}", "Change it."))


def model_config(name_or_file: str, vocab_size: int, context_length: int = 0) -> ModelConfig:
    """A preset by name, or a TOML file of sizes, with the data's vocabulary; `context_length` 0 keeps the preset's."""
    if name_or_file in PRESETS:
        config = dataclasses.replace(PRESETS[name_or_file], vocab_size=vocab_size)
    elif name_or_file.endswith(".toml"):
        values = read_toml(Path(name_or_file))
        config = from_dict(ModelConfig, values, name_or_file, vocab_size=vocab_size)
        if config.vocab_size != vocab_size:
            found = f"vocab_size {config.vocab_size}"
            raise ConfigError(problem(name_or_file, found, f"{vocab_size}, as in the data", "Leave vocab_size out."))
    else:
        known = ", ".join(PRESETS)
        near = difflib.get_close_matches(name_or_file, PRESETS, n=1)
        advice = f"Did you mean {near[0]}?" if near else "Give a preset's name or a file that ends in .toml."
        raise ConfigError(problem("--model", repr(name_or_file), f"one of {known}, or a TOML file", advice))
    return dataclasses.replace(config, context_length=context_length) if context_length else config


def as_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values (paths become strings)."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, (tuple, list)):
            return [plain(item) for item in value]
        return value

    return {item.name: plain(getattr(config, item.name)) for item in dataclasses.fields(config)}
