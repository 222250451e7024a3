"""What the verbs take that use a finished model, or look into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from pellucid.options.base import Options, RunFolder, RunFolders


@dataclass(frozen=True)
class Classify(Options):
    """Say the class of each text, with its probability."""

    run: RunFolder
    """Run folder of a classifier."""
    texts: Positional[Annotated[tuple[str, ...], arg(metavar="TEXT…", help_behavior_hint="(optional)")]] = ()
    """The texts."""
    file: Path | None = None
    """A file with a text on each line (- is standard input), or csv, tsv, jsonl or json with a column of texts."""
    text_column: str = ""
    """The column of the texts in such a --file; without it, it is found by its name: text, message and the like."""
    format: Literal["table", "csv", "jsonl"] = "table"
    """How the answers are printed."""


@dataclass(frozen=True, kw_only=True)
class Compare(Options):
    """Two models on the same held-out questions: a base model beside the tuned one, or two tuned ones."""

    run_a: RunFolder
    """Run folder of a model."""
    run_b: RunFolder
    """Run folder of another."""
    data: Path
    """A file of questions and answers, as for `finetune instruct`; the part that their finetuning held out is asked."""
    html: Path | None = None
    """A page to write: the answers side by side."""
    questions: int = 100
    """How many questions, at most."""
    max_tokens: int = 100
    """Longest answer, in tokens."""
    seed: int | None = None
    """Seed of the split and of the choice of questions; without it, that of their finetuning, or 0."""
    judge: str = ""
    """URL of an OpenAI-compatible server that judges, such as http://127.0.0.1:11434/v1."""
    judge_model: str = ""
    """The judge's model."""
    judge_key_file: Path | None = None
    """A file with the key that the judge's server asks for."""
    judge_tokens: int = 1000
    """Longest reply of the judge, in tokens; one that thinks aloud needs some thousands."""
    repeats: int = 1
    """How often the judge is asked about each pair, in each of the two orders."""


@dataclass(frozen=True)
class Chat(Options):
    """Talk with an assistant; on a pipe, a line in is a reply out (--json: one message, one object).

    A message that is refused there, as too long or no UTF-8, has an empty line for its reply; the reason is on stderr,
    and the exit status 2 at the end.
    """

    run: RunFolder
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
    device: str = "auto"
    """cpu, cuda or mps; auto is cuda where there is one (for int8 and int4 cpu, which alone has them), else cpu."""
    threads: int = 0
    """Threads; 0 is one for each core, and one alone for a small model."""


@dataclass(frozen=True)
class Serve(Options):
    """Serve runs on this machine: OpenAI's protocol for programs, the workbench for browsers."""

    runs: RunFolders
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
    dtype: Literal["auto", "float32", "bfloat16", "int8", "int4"] = "auto"
    """Precision of the matrices that texts are made with; auto is each folder's own, so that nothing is lost."""
    device: str = "auto"
    """Where texts are made: cpu, cuda or mps; auto is cuda where there is one that has the precision, else cpu."""
    threads: int = 0
    """Threads of each model; 0 is one for each core, and one alone for a small model."""


@dataclass(frozen=True)
class See(Options):
    """Look inside a model: one offline HTML page of tokens, attention, layers and next words."""

    run: RunFolder
    """Run folder."""
    text: str = ""
    """The text to look at; without it, one of the run's own samples."""
    html: Path | None = None
    """File to write; without it, see.html in the run folder."""


@dataclass(frozen=True)
class Report(Options):
    """One offline HTML page about one or more runs."""

    runs: RunFolders
    """Run folders."""
    html: Path
    """File to write."""
