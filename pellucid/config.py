"""The settings of the model and of the training as dataclasses, and how any dataclass of settings is read from TOML.

`options/` holds the settings of each verb. An unknown key in a TOML file is an error that suggests the nearest known
one, because a misspelt setting that is silently ignored costs a night of training.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import tomllib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pellucid.runtime import ConfigError, problem

T = TypeVar("T")

# ---------------------------------------------------------------- model and training


@dataclass(frozen=True)
class RopeScaling:
    """How Llama 3 stretches its rotary positions past the context it was first trained on.

    Turns longer than original_context_length / low_frequency_factor tokens become `factor` times slower, those shorter
    than original_context_length / high_frequency_factor stay, and between them it goes over smoothly.
    """

    factor: float = 8.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context_length: int = 8192

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(problem(f"rope_scaling {item.name}", repr(value), "a number above 0", "Change it."))
        if not self.high_frequency_factor > self.low_frequency_factor:
            found = f"high_frequency_factor {self.high_frequency_factor}"
            raise ConfigError(problem("rope_scaling", found, "more than low_frequency_factor", "Change one of them."))


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a GPT of one of the two families. What is left at 0 or empty follows from the rest."""

    family: Literal["gpt2", "llama"] = "gpt2"
    vocab_size: int = 50257
    context_length: int = 1024
    d_model: int = 768
    n_layers: int = 12
    n_heads: int = 12
    n_kv_heads: int = 0
    """llama: heads of keys and values, each shared by n_heads / n_kv_heads heads of queries; 0: n_heads."""
    d_head: int = 0
    """llama: width of one head; 0: d_model / n_heads."""
    d_ff: int = 0
    """Width of the feed-forward; 0: 4 × d_model, in llama 8/3 × d_model, rounded up to a multiple of 64."""
    dropout: float = 0.0
    """Share of values dropped while training; llama knows it for attention weights only."""
    norm_eps: float = 1e-5
    positions: Literal["", "learned", "sinusoidal", "rotary"] = ""
    """gpt2: learned, or sinusoidal (the same table, fixed and not trained); llama: rotary."""
    tied: bool = True
    """Whether the logits share the token embedding; llama may have an output layer of its own."""
    rope_theta: float = 0.0
    """llama: the base of the rotary positions; 0: 10,000."""
    rope_scaling: RopeScaling | None = None
    query_key_norm: bool = False
    """llama: each head's queries and keys are normed before they are rotated, as in Qwen3."""
    window: int = 0
    """llama: how many tokens a token sees, itself included, as in Mistral; 0: all before it."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "d_model", "n_layers", "n_heads"):
            self._check_count(name, least=1)
        for name in ("n_kv_heads", "d_head", "d_ff", "window"):
            self._check_count(name, least=0)
        for name, below in (("dropout", 1.0), ("rope_theta", math.inf)):
            self._check_number(name, below)
        if self.d_head == 0 and self.d_model % self.n_heads:
            advice = "Make d_model a multiple of n_heads."
            raise self._problem(f"d_model {self.d_model} and n_heads {self.n_heads}", "heads of equal size", advice)
        for name, value in self._what_follows().items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        for name, known in self._what_the_family_knows().items():
            if getattr(self, name) not in known:
                expected = " or ".join(map(repr, known))
                advice = "Leave it out, or choose another family or size."
                raise self._problem(
                    f"{name} {getattr(self, name)!r}", f"{expected} in the {self.family} family", advice
                )
        if self.n_heads % self.n_kv_heads:
            found = f"n_heads {self.n_heads} and n_kv_heads {self.n_kv_heads}"
            raise self._problem(found, "as many queries for each key", "Make n_heads a multiple of n_kv_heads.")
        if self.positions == "rotary" and self.d_head % 2:
            raise self._problem(f"d_head {self.d_head}", "an even number, for rotary positions", "Change it.")

    def _what_follows(self) -> dict[str, Any]:
        """The settings that may be left out, as they are then."""
        of_family: dict[str, dict[str, Any]] = {
            "gpt2": {"d_ff": 4 * self.d_model, "positions": "learned"},
            "llama": {"d_ff": math.ceil(self.d_model * 8 / 3 / 64) * 64, "positions": "rotary", "rope_theta": 1e4},
        }
        return {"n_kv_heads": self.n_heads, "d_head": self.d_model // self.n_heads, **of_family[self.family]}

    def _what_the_family_knows(self) -> dict[str, tuple[Any, ...]]:
        """The values that its folders can say, of the settings for which these are few."""
        known: dict[str, dict[str, tuple[Any, ...]]] = {
            "gpt2": {
                "n_kv_heads": (self.n_heads,),
                "d_head": (self.d_model / self.n_heads,),
                "positions": ("learned", "sinusoidal"),
                "tied": (True,),
                "rope_theta": (0.0,),
                "rope_scaling": (None,),
                "query_key_norm": (False,),
                "window": (0,),
            },
            "llama": {"positions": ("rotary",), "tied": (True, False), "query_key_norm": (True, False)},
        }
        return known[self.family]

    def _check_count(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self._problem(f"{name} {value!r}", f"a whole number, {least} or more", "Change it.")

    def _check_number(self, name: str, below: float) -> None:
        value = getattr(self, name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < below:
            raise self._problem(f"{name} {value!r}", f"a number from 0 up to {below:g}", "Change it.")

    def _problem(self, found: str, expected: str, advice: str) -> ConfigError:
        return ConfigError(problem("model settings", found, expected, advice))


PRESETS: dict[str, ModelConfig] = {
    "laptop": ModelConfig(d_model=96, n_layers=2, n_heads=3, context_length=256),
    "laptop-large": ModelConfig(d_model=160, n_layers=4, n_heads=5, context_length=256),
    "laptop-llama": ModelConfig("llama", d_model=96, n_layers=2, n_heads=3, n_kv_heads=1, context_length=256),
    "laptop-large-llama": ModelConfig("llama", d_model=160, n_layers=4, n_heads=5, n_kv_heads=1, context_length=256),
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
    """Examples of one forward and backward pass; 0 is the whole batch, on a CPU about a gigabyte of it."""
    lr: float = 5e-3
    """Peak learning rate of AdamW: embeddings, biases, norms (and the matrices, when the optimizer is adamw)."""
    matrix_lr: float = 0.03
    """Peak learning rate of Muon: the matrices inside the blocks."""
    optimizer: Literal["muon", "adamw", "adafactor"] = "muon"
    """muon: Muon for the matrices inside the blocks and AdamW for the rest; adamw: AdamW for all; adafactor: Adafactor
    for all matrices, AdamW for the rest."""
    weight_decay: float = 0.1
    """Decoupled weight decay of the matrices."""
    warmup_share: float = 0.05
    """Share of the steps in which the learning rate rises."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """What follows the rise: linear (a plateau, then a straight fall to zero), cosine (down to a tenth) or constant."""
    decay_share: float = 0.6
    """linear: share of the steps, at the end, in which the learning rate falls to zero."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    recompute: bool = False
    """Keep only what goes into each block, and compute the rest again on the way back: less memory, a third slower."""
    average: float = 0.0
    """Evaluate, and end with, a running average of the weights that keeps this share at each step (0.999); 0: none."""
    early_stop: int = 0
    """End after so many evaluations in a row without a lower loss, with the weights of the best; 0: never."""
    enough: float = 0.0
    """End at the evaluation whose loss is lower than this; 0: never."""
    best: bool = False
    """End with the weights of the evaluation with the lowest loss."""
    spikes: bool = False
    """Treat a loss far above the recent ones as trouble, and not only one that is no number."""
    seed: int = 0
    """Seed of the data order, the initialisation and dropout."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the matrix products; auto times both on this machine and keeps the faster."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    evaluate_share: float = 0.1
    """Share of the run between evaluations on held-out data; by the clock, of those there is time for (fit.py)."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 is one about every 30 seconds."""
    keep: int = 2
    """How many checkpoints are kept."""
    shard: bool = False
    """Divide the weights over the processes of the run, instead of giving each a copy."""
    log: tuple[str, ...] = ()
    """Where metrics go beside metrics.jsonl: tensorboard, wandb."""

    def __post_init__(self) -> None:
        if self.steps < 1 and not self.minutes > 0:
            raise ConfigError(problem("training", "neither steps nor minutes", "one of them above 0", "Give one."))
        for name in ("batch_size", "lr", "evaluate_share", "clip", "keep"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(problem(f"training, {name}", f"{getattr(self, name)}", "more than 0", "Change it."))
        for name in ("micro_batch_size", "early_stop", "checkpoint_every"):
            if getattr(self, name) < 0:
                raise ConfigError(problem(f"training, {name}", f"{getattr(self, name)}", "0 or more", "Change it."))
        if not 0 <= self.seed < 2**63:
            advice = "Choose another."
            raise ConfigError(problem("training, seed", f"{self.seed}", "a number from 0 up to 2^63", advice))
        if self.shard and (self.average or self.best or self.early_stop):
            found = "shard with average, best or early_stop"
            raise ConfigError(problem("training", found, "one or the other", "Leave one of them out."))
        if self.shard and self.optimizer == "adafactor":  # a slice's columns are not whole
            advice = "Leave one of them out: slices take less memory, too."
            raise ConfigError(problem("training", "shard with adafactor", "shard with muon or adamw", advice))
        for name in ("average", "warmup_share"):
            if not 0 <= getattr(self, name) < 1:
                found = f"{getattr(self, name)}"
                raise ConfigError(problem(f"training, {name}", found, "a share from 0 up to 1", "Change it."))


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
    if origin in (types.UnionType, typing.Union):  # `X | None`, or a number or a word
        wanted = [option for option in options if option is not type(None)]
        for option in wanted[:-1]:
            with contextlib.suppress(ConfigError):
                return _checked(value, option, where)
        return _checked(value, wanted[-1], where)
    if origin is Literal:
        if value in options:
            return value
        raise ConfigError(problem(where, repr(value), " or ".join(map(repr, options)), "Change it."))
    if origin is tuple:
        return tuple(_checked(item, options[0], where) for item in (value if isinstance(value, list) else [value]))
    if origin is dict and isinstance(value, dict):
        return {str(key): _checked(item, options[1], f"{where}, {key}") for key, item in value.items()}
    hint = origin or hint
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(hint, value, where)
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
        return as_dict(value) if dataclasses.is_dataclass(value) else value

    return {item.name: plain(getattr(config, item.name)) for item in dataclasses.fields(config)}
