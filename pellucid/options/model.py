"""What the verbs of models take: planned, trained, brought in, taken out, made smaller, measured, and writing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from pellucid.options.base import Options, RunFolder
from pellucid.options.fitting import Fitting, WrittenRun


@dataclass(frozen=True, kw_only=True)
class Budget(Options):
    """What is trained, and for how long."""

    model: str = "laptop"
    """A preset (laptop, laptop-large, laptop-llama, laptop-large-llama, gpt2, gpt2-medium, gpt2-large, gpt2-xl) or a
    TOML file of sizes."""
    steps: int = 0
    """Optimizer steps; 0 is as many as the tokens or the minutes ask for."""
    tokens: int = 0
    """Tokens to train on, where no steps are given; 0 is as many as fit into the minutes."""
    minutes: float = 5.0
    """Time to aim at, where neither steps nor tokens are given."""
    batch_size: int | None = None
    """Windows of one optimizer step, of all processes together; left out, it follows from the tokens or minutes."""
    context: int = 0
    """Tokens of one window; 0 is the model's context length."""


@dataclass(frozen=True, kw_only=True)
class Training(Fitting, Budget):
    """What is planned, and then run."""

    spikes: bool = True
    shard: bool = False
    """Under torchrun: divide the weights over the processes (FSDP2), for a model that does not fit into one."""


@dataclass(frozen=True, kw_only=True)
class Plan(Training):
    """What a training run will take: parameters, memory, FLOPs, its batch and, after ten seconds of training, time."""

    data: Path | None = None
    """Folder of shards: its vocabulary counts, and how often the run would read it."""
    vocab_size: int = 50257
    """Size of the vocabulary where no --data is given."""
    probe: bool = True
    """Train for ten seconds to know the speed; without it, sizes only."""


@dataclass(frozen=True, kw_only=True)
class Pretrain(Training, WrittenRun):
    """Train a GPT from scratch on token shards."""

    data: Path
    """Folder of shards, as written by `pellucid encode`."""
    stride: int | Literal["random"] = 0
    """Tokens between the beginnings of two windows; 0 begins them at documents where these fit, random anywhere."""
    prompts: Annotated[tuple[str, ...], arg(metavar="TEXT…")] = ()
    """Beginnings that are continued at each evaluation, into samples.jsonl."""


@dataclass(frozen=True)
class Import(Options):
    """Make a run folder of a released model: GPT-2, or any model of the gpt2, llama, mistral and qwen3 types."""

    what: Positional[Annotated[str, arg(metavar="MODEL")]]
    """gpt2, gpt2-medium, gpt2-large, gpt2-xl, owner/name on the Hugging Face hub (HF_ENDPOINT names a mirror), a folder
    of transformers', OpenAI's folder with a TensorFlow checkpoint, or the folder of a LoRA adapter, to be merged."""
    out: Path
    """Run folder to write; a download that broke off goes on where it was."""
    revision: str = ""
    """Branch, tag or commit on the hub; run.json keeps the commit. Empty is main."""
    base: str = ""
    """Of an adapter: the model that it belongs to, where it is not the one that it names."""


@dataclass(frozen=True)
class Export(Options):
    """Take a model to other tools: GGUF for llama.cpp, ONNX for ONNX Runtime; read again and compared first."""

    run: RunFolder
    """Run folder."""
    to: Literal["gguf", "onnx"]
    """gguf: weights and tokenizer in one file; onnx: the computation from ids to logits, also of a classifier."""
    out: Path
    """File to write."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Precision of the matrices in the file; onnx knows float32 only."""


@dataclass(frozen=True)
class Quantize(Options):
    """Keep a model's matrices in 8 or 4 bits a number: smaller, faster, a little worse; says how much."""

    run: RunFolder
    """Run folder of a model that writes text."""
    to: Literal["int8", "int4"]
    """int8: a scale for each row; int4: one for each 64 numbers, the token embedding in int8."""
    out: Path
    """Run folder to write. All verbs take it; transformers does not, so keep the original."""
    data: Path | None = None
    """A text file, or a folder of shards (the test split is used), to measure the loss on, before and after."""


@dataclass(frozen=True)
class Evaluate(Options):
    """Loss, perplexity and bits per byte of a model on text, or how many questions it answers, with the spread."""

    run: RunFolder
    """Run folder."""
    data: Path | None = None
    """Shards (the test split is used), a text file, or jsonl of questions: contexts with endings, or what follows."""
    last_word: bool = False
    """Ask for the last word of each text of a jsonl file, as LAMBADA does."""
    tasks: Annotated[tuple[str, ...], arg(metavar="NAME…")] = ()
    """Tasks of lm-evaluation-harness instead of --data (pip install 'pellucid[eval]')."""
    task_folder: Path | None = None
    """A folder with more of its tasks, yaml files of your own."""
    limit: int = 0
    """Questions of each task; 0 is all."""


@dataclass(frozen=True)
class Generate(Options):
    """Continue a text. With --json: text, tokens, tokens_per_s, first_token_s."""

    run: RunFolder
    """Run folder."""
    prompt: str
    """The beginning of the text (- is standard input, without the newline at its end)."""
    max_tokens: int = 100
    """Longest continuation, in tokens."""
    temperature: float = 0.8
    """0 always takes the likeliest token; 1 samples from the model's own probabilities."""
    top_k: int = 0
    """Keep the k likeliest tokens only; 0 keeps all."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together reach this probability."""
    min_p: float = 0.0
    """Keep the tokens at least this many times as likely as the likeliest; 0 keeps all."""
    repetition_penalty: float = 1.0
    """Above 1, what the text already holds becomes less likely; 1 changes nothing."""
    stop: Annotated[tuple[str, ...], arg(metavar="TEXT…")] = ()
    """End before any of these texts."""
    samples: int = 1
    """Continuations of the same prompt, each drawn on its own."""
    seed: int = 0
    """Same seed, same text, on the same machine."""
    dtype: Literal["auto", "float32", "bfloat16", "int8", "int4"] = "auto"
    """Precision of the matrices; auto is the folder's own, so that nothing is lost."""
    device: str = "auto"
    """cpu, cuda or mps; auto is cuda where there is one (for int8 and int4 cpu, which alone has them), else cpu."""
    threads: int = 0
    """Threads; 0 is one for each core, and one alone for a small model."""
    table: bool = False
    """Show how the next token is chosen, instead of a text: the ten likeliest, from logit to probability."""
