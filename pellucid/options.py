"""What each verb of the command line takes: one dataclass a verb, whose docstrings are its help.

The order is that of the data: text, model, training, finetuning, use. `--config FILE.toml` fills the same classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg


@dataclass(frozen=True)
class Options:
    """What every verb takes."""

    json: bool = field(default=False, kw_only=True)
    """Print one JSON object on stdout."""


@dataclass(frozen=True)
class Quickstart(Options):
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


@dataclass(frozen=True)
class TokenizerTrain(Options):
    """Train a tokenizer on text files and save it in Hugging Face's format."""

    files: Positional[tuple[Path, ...]] = ()
    """Files, folders, patterns as `pellucid encode` takes them; - is standard input."""
    out: Path = field(kw_only=True)
    """Folder to write."""
    kind: Literal["bpe", "char", "word"] = "bpe"
    """Byte-level byte pairs, characters or words."""
    vocab_size: int = 4096
    """Size of the vocabulary, special tokens not counted."""
    pattern: Literal["gpt2", "cl100k"] = "gpt2"
    """How text is cut into pieces before byte pairs are merged (llama.cpp knows both)."""
    special_tokens: tuple[str, ...] = ()
    """More special tokens than the ones for the end of a text and for conversations."""
    text_field: str | None = None
    """The column or key that holds the text; found by its name where it is not given."""
    dataset: str = ""
    """A data set of Hugging Face `datasets`, a name or a folder, streamed (pip install 'pellucid[data]')."""


@dataclass(frozen=True)
class TokenizerShow(Options):
    """Show how a text falls into tokens: in colour on a terminal, else with | between them."""

    text: Positional[str]
    """Any text (- is standard input)."""
    tokenizer: Annotated[tuple[str, ...], UseAppendAction] = ()
    """A folder with a tokenizer, its file, or gpt2; may be given again. Without it: words, characters and gpt2."""
    kinds: bool = False
    """Show words and characters, too."""
    tree: bool = False
    """Draw how the first words were merged, byte by byte."""


@dataclass(frozen=True)
class TokenizerReport(Options):
    """Compare tokenizers, and GPT-2's where it is at hand, over kinds of text: prose, code, numbers, scripts, emoji."""

    tokenizers: Positional[tuple[str, ...]]
    """Folders with tokenizers, their files, or gpt2."""
    text: Annotated[tuple[Path, ...], arg(metavar="FILE…")] = ()
    """Own texts to compare on, beside the embedded samples."""


@dataclass(frozen=True)
class TokenizerExport(Options):
    """Write a tokenizer in another format, so that other tools give the same ids."""

    tokenizer: Positional[str]
    """A folder with a tokenizer, a tokenizer's file, or gpt2."""
    to: Literal["tokenizer.json", "vocab-merges", "tiktoken"]
    """Hugging Face's tokenizer.json, GPT-2's vocab.json + merges.txt, or tiktoken's ranks."""
    out: Path
    """Folder to write; for tiktoken a file NAME.tiktoken."""


@dataclass(frozen=True)
class Encode(Options):
    """Turn text into memory-mapped token shards, split into train, val and test by document."""

    files: Positional[tuple[Path, ...]] = ()
    """Files, folders, patterns (txt, md, jsonl, json, csv, tsv, parquet; gz or zst of these); - is standard input."""
    out: Path = field(kw_only=True)
    """Folder to write; an interrupted run goes on where it was."""
    tokenizer: str = "gpt2"
    """A folder with a tokenizer, or gpt2."""
    workers: int = 0
    """Threads; 0 is one for each core. The shards are the same for any number."""
    engine: Literal["threads", "ray"] = "threads"
    """threads: this machine; ray: all machines of a Ray cluster, on a folder that they share."""
    val: float = 0.05
    """Share of the documents for validation."""
    test: float = 0.05
    """Share of the documents for the test."""
    seed: int = 0
    """Another seed holds out other documents."""
    text_field: str | None = None
    """The column or key that holds the text; found by its name where it is not given."""
    strip_gutenberg: Literal["auto", "yes", "no"] = "auto"
    """Leave out Project Gutenberg's header and footer: where they are found, everywhere, never."""
    dataset: str = ""
    """A data set of Hugging Face `datasets`, a name or a folder, streamed (pip install 'pellucid[data]')."""


@dataclass(frozen=True)
class Doctor(Options):
    """What is in data files and what to mend there; without a file, the machine and the install."""

    files: Positional[tuple[Path, ...]] = ()
    """Files or folders with text, labelled texts or instructions (- is standard input)."""
    against: Path | None = None
    """Another file: texts that are in both, exactly or nearly, are counted."""
    tokenizer: str = ""
    """A folder with a tokenizer, or gpt2, to give lengths in tokens, too."""
    context_length: int = 0
    """Count the documents that are longer than this many tokens."""


@dataclass(frozen=True, kw_only=True)
class Training(Options):
    """What is planned, and then run."""

    model: str = "laptop"
    """A preset (laptop, laptop-large, laptop-llama, gpt2, gpt2-medium, gpt2-large, gpt2-xl) or a TOML file of sizes."""
    steps: int = 0
    """Optimizer steps; 0 is as many as the tokens or the minutes ask for."""
    tokens: int = 0
    """Tokens to train on, where no steps are given; 0 is as many as fit into the minutes."""
    minutes: float = 5.0
    """Time to aim at, where neither steps nor tokens are given."""
    batch_size: int | None = None
    """Windows of one optimizer step, of all processes together; left out, it follows from the tokens or minutes."""
    micro_batch_size: int = 0
    """Windows of one forward and backward pass; 0 is the whole batch at once."""
    context: int = 0
    """Tokens of one window; 0 is the model's context length."""
    lr: float = 0.0
    """Peak learning rate of AdamW (Muon's moves with it); 0 follows from the model's width."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """What the rate does after its rise: a plateau and a straight fall to zero, a cosine down to a tenth, nothing."""
    recompute: bool = False
    """Gradient checkpointing: keep only what goes into each block; less memory, a third slower."""
    average: float = 0.0
    """Evaluate, and end with, a running average of the weights (EMA) that keeps this share at each step, as 0.999."""
    early_stop: int = 0
    """End after so many evaluations in a row without a lower loss, with the best weights; 0 never does."""
    best: bool = False
    """End with the weights of the evaluation with the lowest loss, not with the last."""
    spikes: bool = True
    """Go back and leave a step out where the loss jumps; a loss that is no number is always left out."""
    shard: bool = False
    """Under torchrun: divide the weights over the processes (FSDP2), for a model that does not fit into one."""
    seed: int = 0
    """Seed of the data order, the initialisation and dropout."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """muon (with AdamW for all but matrices) or adamw."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the matrix products."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""


@dataclass(frozen=True, kw_only=True)
class Plan(Training):
    """What a training run will take: parameters, FLOPs, memory and, after ten seconds of training, time."""

    data: Path | None = None
    """Folder of shards: its vocabulary counts, and how often the run would read it."""
    vocab_size: int = 50257
    """Size of the vocabulary where no --data is given."""
    probe: bool = True
    """Train for ten seconds to know the speed; without it, sizes only."""


@dataclass(frozen=True, kw_only=True)
class Pretrain(Training):
    """Train a GPT from scratch on token shards."""

    data: Path
    """Folder of shards, as written by `pellucid encode`."""
    out: Path
    """Run folder to write: a Hugging Face model folder."""
    stride: int | Literal["random"] = 0
    """Tokens between the beginnings of two windows; 0 begins them at documents where these fit, random anywhere."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 is one about every 30 seconds."""
    keep: int = 2
    """How many checkpoints are kept."""
    log: Annotated[tuple[Literal["tensorboard", "wandb"], ...], arg(metavar="NAME…")] = ()
    """Where metrics go beside metrics.jsonl (pip install 'pellucid[log]'); wandb stays offline by itself."""
    prompts: Annotated[tuple[str, ...], arg(metavar="TEXT…")] = ()
    """Beginnings that are continued at each evaluation, into samples.jsonl."""
    resume: bool = False
    """Go on from the newest checkpoint in --out (from the beginning where there is none)."""


@dataclass(frozen=True)
class Import(Options):
    """Make a run folder of a released model: GPT-2, or any model of the gpt2, llama, mistral and qwen3 types."""

    what: Positional[str]
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

    run: Positional[Path]
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

    run: Positional[Path]
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

    run: Positional[Path]
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

    run: Positional[Path]
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
    threads: int = 0
    """Threads; 0 is one for each core, and one alone for a small model."""
    table: bool = False
    """Show how the next token is chosen, instead of a text: the ten likeliest, from logit to probability."""


@dataclass(frozen=True, kw_only=True)
class Finetuning(Options):
    """What the ways to finetune have in common."""

    run: Positional[Path]
    """Run folder of a pretrained model."""
    out: Path
    """Run folder to write: a Hugging Face model folder."""
    batch_size: int = 32
    """Examples of one optimizer step."""
    lr: float = 0.0
    """Peak learning rate; 0 is the recipe's."""
    seed: int = 0
    """Seed of the split and the data order."""
    checkpoint_every: int = 0
    """Optimizer steps between two checkpoints; 0: every 30 seconds. The last step has one, too."""
    train: str = "all"
    """What is trained: all, last-K (the last K blocks), head, or lora (small matrices beside frozen ones)."""
    lora_rank: int = 8
    """Rank of LoRA's matrices."""
    lora_alpha: float = 16.0
    """What LoRA's part counts: alpha / rank."""
    lora_targets: Annotated[tuple[str, ...], arg(metavar="NAME…")] = ()
    """Layers of each block that get LoRA's matrices, such as attention.query attention.value; without it, all."""
    base: Literal["float32", "int8"] = "float32"
    """Precision of the frozen matrices beside LoRA's; int8 takes a quarter of the memory."""
    resume: bool = False
    """Go on from the newest checkpoint in --out."""


@dataclass(frozen=True, kw_only=True)
class FinetuneClassify(Finetuning):
    """Finetune a model to tell classes of text apart."""

    data: Path
    """csv, tsv or jsonl with a text and a label column, or a folder with a folder of .txt files for each class."""
    val: Path | None = None
    """Labelled texts for validation; without it, a tenth of the data."""
    test: Path | None = None
    """Labelled texts for the test; without it, a fifth of the data."""
    text_column: str = ""
    """Name of the column with the texts; found by looking where it is not given."""
    label_column: str = ""
    """Name of the column with the labels."""
    multi_label: bool = False
    """A text may have several labels or none: written a|b, or as a list in jsonl."""
    class_weight: Literal["none", "balanced", "sampler"] = "none"
    """For rare classes: balanced weighs their loss, sampler draws them more often."""
    cut: Literal["end", "start", "middle"] = "end"
    """What is left out of a text that is longer than the context."""
    teacher: Literal["linear", "none"] = "linear"
    """linear: learn also what a linear model on words and characters says, of texts made up of these, too."""
    epochs: float = 4.0
    """Passes over the training split; with a teacher each has three made-up texts for two of its own."""


@dataclass(frozen=True, kw_only=True)
class FinetuneInstruct(Finetuning):
    """Finetune a model to follow instructions."""

    data: Path
    """json or jsonl: Alpaca, ShareGPT, messages, or prompt and completion; found by looking."""
    epochs: float = 3.0
    """Passes over the training split."""
    merge: bool = True
    """Make LoRA's matrices part of the written model; --no-merge writes the adapter alone, to be merged by import."""
    packing: bool = False
    """Several conversations in a row, none seeing another: the same loss; faster where their lengths differ much."""


@dataclass(frozen=True, kw_only=True)
class FinetunePrefer(Finetuning):
    """Teach an assistant which of two answers is the better one (DPO)."""

    data: Path
    """json or jsonl with chosen and rejected answers to a prompt, an instruction, or a talk so far."""
    beta: float = 0.1
    """How strongly the model is held to what it was: larger, and it moves less."""
    epochs: float = 1.0
    """Passes over the training split."""
    merge: bool = True
    """Make LoRA's matrices part of the written model; --no-merge writes the adapter alone, to be merged by import."""


@dataclass(frozen=True)
class Classify(Options):
    """Say the class of each text, with its probability."""

    run: Positional[Path]
    """Run folder of a classifier."""
    texts: Positional[tuple[str, ...]] = ()
    """The texts."""
    file: Path | None = None
    """A file with a text on each line (- is standard input)."""
    format: Literal["table", "csv", "jsonl"] = "table"
    """How the answers are printed."""


@dataclass(frozen=True, kw_only=True)
class Compare(Options):
    """Two models on the same held-out questions: a base model beside the tuned one, or two tuned ones."""

    run_a: Positional[Path]
    """Run folder of a model."""
    run_b: Positional[Path]
    """Run folder of another."""
    data: Path
    """json or jsonl with questions and answers; the part that `finetune` with the same seed held out is asked."""
    html: Path | None = None
    """A page to write: the answers side by side."""
    questions: int = 100
    """How many questions, at most."""
    max_tokens: int = 100
    """Longest answer, in tokens."""
    seed: int = 0
    """Seed of the split and of the choice of questions."""
    judge: str = ""
    """URL of an OpenAI-compatible server that judges, such as http://127.0.0.1:11434/v1."""
    judge_model: str = ""
    """The judge's model."""
    judge_key_file: Path | None = None
    """A file with the key that the judge's server asks for."""
    repeats: int = 1
    """How often the judge is asked about each pair, in each of the two orders."""


@dataclass(frozen=True)
class Chat(Options):
    """Talk with an assistant; on a pipe, a line in is a reply out (--json: one message, one object)."""

    run: Positional[Path]
    """Run folder of an assistant."""
    system: str = ""
    """What the assistant is told before the talk begins."""
    temperature: float = 0.0
    """0 always takes the likeliest token."""
    max_tokens: int = 200
    """Longest reply, in tokens."""
    seed: int = 0
    """Same seed, same replies, on the same machine."""
    dtype: Literal["auto", "float32", "bfloat16", "int8", "int4"] = "auto"
    """Precision of the matrices; auto is the folder's own, so that nothing is lost."""
    threads: int = 0
    """Threads; 0 is one for each core, and one alone for a small model."""


@dataclass(frozen=True)
class Serve(Options):
    """Serve runs on this machine: OpenAI's protocol for programs, the workbench for browsers."""

    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN…")]]
    """Run folders: models, assistants, classifiers. A client knows each by its folder's name."""
    host: str = "127.0.0.1"
    """Address to listen at; another than this machine's own needs --api-key-file."""
    port: int = 8000
    """Port to listen at; 0 finds a free one."""
    api_key_file: Path | None = None
    """A file with the key that clients must send."""
    host_names: Annotated[tuple[str, ...], arg(metavar="NAME…")] = ()
    """Other names under which clients reach this server, such as that of a proxy before it."""
    batch: int = 0
    """Texts that a model decodes together; 0 is as many as a gigabyte has room for, at most 64."""
    queue: int = 256
    """Texts that may wait for their turn; further ones are told to come again."""


@dataclass(frozen=True)
class See(Options):
    """Look inside a model: one offline HTML page of tokens, attention, layers and next words."""

    run: Positional[Path]
    """Run folder."""
    text: str = ""
    """The text to look at; without it, one of the run's own samples."""
    html: Path | None = None
    """File to write; without it, see.html in the run folder."""


@dataclass(frozen=True)
class Report(Options):
    """One offline HTML page about one or more runs."""

    runs: Positional[tuple[Path, ...]]
    """Run folders."""
    html: Path
    """File to write."""
