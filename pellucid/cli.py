"""The command line: one table of verbs, each with its settings and the function that does it.

Nothing heavy is imported before the verb is known, so `pellucid --help` answers at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import errno
import gc
import inspect
import os
import sys
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pellucid.compute import exact_products
from pellucid.runtime import (
    PellucidError,
    Verbatim,
    one_line_of_json,
    printable,
    problem,
    speaks,
)
from pellucid.version import __version__

GO_ON = ("quickstart", "encode", "import", "pretrain", "finetune")  # verbs that keep what they have done
BLAS = "scipy.linalg.cython_blas"  # what Numba looks for


class Verb(NamedTuple):
    """The class in pellucid.options that holds its settings, and module:function that does it."""

    settings: str
    function: str
    summary: str


VERBS = {
    "quickstart": Verb(
        "Quickstart", "pellucid.quickstart.steps:quickstart", "all three stages end to end, then a report"
    ),
    "tokenizer train": Verb("TokenizerTrain", "pellucid.text.commands:train_tokenizer", "learn a tokenizer from text"),
    "tokenizer show": Verb("TokenizerShow", "pellucid.text.look:show_tokens", "how a text falls into tokens"),
    "tokenizer report": Verb("TokenizerReport", "pellucid.text.look:report_tokenizers", "tokenizers side by side"),
    "tokenizer export": Verb(
        "TokenizerExport", "pellucid.text.commands:export_tokenizer", "a tokenizer for tiktoken or older tools"
    ),
    "encode": Verb("Encode", "pellucid.text.commands:encode", "text files → token shards"),
    "doctor": Verb("Doctor", "pellucid.cli:doctor", "what is wrong with a data file, or the machine"),
    "plan": Verb("Plan", "pellucid.pretrain.plan:plan", "memory, speed and time of a run, before it runs"),
    "pretrain": Verb("Pretrain", "pellucid.pretrain.commands:pretrain", "train a GPT from scratch on shards"),
    "import": Verb("Import", "pellucid.model.importing:import_model", "a released model → a run folder"),
    "export": Verb("Export", "pellucid.assistant.export.commands:export", "a run folder → a GGUF or ONNX file"),
    "quantize": Verb("Quantize", "pellucid.pretrain.quantize:quantize", "keep a model in 8 or 4 bits a number"),
    "evaluate": Verb("Evaluate", "pellucid.pretrain.commands:evaluate", "loss, perplexity, bits per byte of a model"),
    "generate": Verb("Generate", "pellucid.generation.commands:generate_text", "continue a text"),
    "finetune classify": Verb(
        "FinetuneClassify",
        "pellucid.finetune.classify_commands:finetune_classify",
        "make a classifier from labelled texts",
    ),
    "classify": Verb("Classify", "pellucid.finetune.classify_texts:classify", "say the class of texts"),
    "finetune instruct": Verb(
        "FinetuneInstruct",
        "pellucid.finetune.instruct_commands:finetune_instruct",
        "make an assistant from instructions",
    ),
    "finetune prefer": Verb(
        "FinetunePrefer",
        "pellucid.finetune.prefer_commands:finetune_prefer",
        "teach an assistant which answers are better",
    ),
    "compare": Verb("Compare", "pellucid.see.compare:compare", "two models on the same questions, side by side"),
    "chat": Verb("Chat", "pellucid.assistant.chat:chat", "talk with an assistant"),
    "serve": Verb("Serve", "pellucid.cli:serve", "OpenAI's protocol and the workbench, for your own runs"),
    "see": Verb("See", "pellucid.see.commands:see", "look inside a model: one offline HTML page"),
    "report": Verb("Report", "pellucid.see.commands:report", "runs side by side: one offline HTML page"),
}


def main() -> None:
    """Run the command line and exit: 0 done, 2 something to mend (said in one message), 130 stopped by Ctrl-C."""
    exact_products()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # where it is no UTF-8, what it lacks is shown by its number
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(newline=None)  # line ends of any system, as in files
        if not sys.stdin.isatty():
            sys.stdin.reconfigure(encoding="utf-8-sig")  # and without a byte order mark, as there
    try:
        sys.exit(run(sys.argv[1:]))
    except PellucidError as error:
        print(f"pellucid: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        with suppress(BrokenPipeError):
            print(f"\npellucid: stopped. {way_on(sys.argv[1:])}".rstrip(), file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        where = f"{str(error.filename)[:40]}…"
        said = problem(where, "a name that is too long", "the path of a file or a folder", "Is it the text itself?")
        print(f"pellucid: {printable(said)}", file=sys.stderr)
        sys.exit(2)
    finally:
        gc.freeze()  # nothing is looked through for garbage on the way out: with torch that took half a second


def way_on(arguments: list[str]) -> str:
    """What goes on where these arguments were stopped, where anything does: training only where it is told to."""
    if arguments[:1] == ["chat"]:
        return "Before the end of a talk, /save FILE keeps it."
    if not arguments or arguments[0] not in GO_ON:
        return ""
    more = " with --resume" if arguments[0] in ("pretrain", "finetune") and "--resume" not in arguments else ""
    return f"What was done so far is kept; the same command{more} goes on from there."


def run(arguments: list[str]) -> int:
    """Find the verb, read its settings, do it, print the result."""
    if arguments[:1] == ["help"] and len(arguments) > 1:
        arguments = [*arguments[1:], "--help"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[1:] in (["-h"], ["--help"]) and second_words(arguments[0]):
        print(overview(f"{arguments[0]} "))
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"pellucid {__version__}")
        return 0
    name, rest = find_verb(arguments)
    verb = VERBS[name]
    settings = read_settings(name, verb, rest)
    module, function = verb.function.split(":")
    result, text = getattr(imported(module), function)(settings)
    if not speaks():
        return 0
    if settings.json:
        print(one_line_of_json(result))
    elif text:
        print(text if isinstance(text, Verbatim) else printable(text))
    return 0


def imported(name: str) -> ModuleType:
    """A module, imported with the garbage collector at rest: of all that torch makes then, nothing is garbage."""
    gc.disable()
    try:
        found = import_module(name)
        if "numba" in sys.modules:
            import_without_blas("numba.np.arraymath")
        gc.freeze()  # so no later search goes through it either: the first took 0.14 s
        return found
    finally:
        gc.enable()


def import_without_blas(name: str) -> None:
    """Import what would import SciPy's linear algebra if it found it: 0.2 s of each start.

    Numba could multiply matrices with it, which no compiled function here does.
    """
    modules: dict[str, Any] = sys.modules
    absent = modules.setdefault(BLAS, None) is None  # to Python a module that is None is one that is not there
    try:
        import_module(name)
    finally:
        if absent:
            del modules[BLAS]


def serve(settings: Any) -> Any:
    """`pellucid serve`: the one verb of two packages that know nothing of each other, the server and its pages."""
    commands, workbench = imported("pellucid.assistant.server.commands"), imported("pellucid.see.workbench")
    return commands.serve(settings, workbench.routes)


def doctor(settings: Any) -> Any:
    """`pellucid doctor`, which takes for an example to finetune on what finetuning will take for one."""
    return imported("pellucid.text.doctor").doctor(settings, imported("pellucid.finetune.records").fault)


def overview(beginning: str = "") -> str:
    """The table of verbs, or of those that begin so, as help."""
    lines = [f"  pellucid {name:<18} {verb.summary}" for name, verb in VERBS.items() if name.startswith(beginning)]
    return "\n".join(
        [
            "Pellucid: a language model you build, train, use and see through.",
            "",
            *lines,
            "",
            "pellucid VERB --help tells what a verb takes. Each takes --json and --config FILE.toml.",
            "New here? Type: pellucid quickstart",
        ]
    )


def second_words(first: str) -> list[str]:
    """What may stand behind the first word of verbs of two."""
    return [name.split()[1] for name in VERBS if name.startswith(f"{first} ")]


def find_verb(arguments: list[str]) -> tuple[str, list[str]]:
    """The verb, of one word or two, and the arguments behind it."""
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in VERBS:
            return name, arguments[words:]
    if second := second_words(arguments[0]):
        raise PellucidError(f"{arguments[0]!r} needs a second word: {' or '.join(second)}.")
    near = difflib.get_close_matches(" ".join(arguments[:2]), VERBS, n=1) or difflib.get_close_matches(
        arguments[0], VERBS, n=1
    )
    hint = f"Did you mean `pellucid {near[0]}`?" if near else "`pellucid --help` lists them."
    raise PellucidError(f"there is no verb {arguments[0]!r}. {hint}")


def read_settings(name: str, verb: Verb, arguments: list[str]) -> Any:
    """The verb's settings: the class's defaults, then the TOML file of --config, then the command line."""
    import tyro

    kind = getattr(import_module("pellucid.options"), verb.settings)
    file, arguments = take_config(arguments)
    default = None
    if file is not None:
        config = import_module("pellucid.config")
        fields = {field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
        missing = dict.fromkeys(fields, tyro.MISSING)
        default = config.from_dict(kind, config.read_toml(file), file, **missing)
    settings = tyro.cli(
        kind,
        prog=f"pellucid {name}",
        description=inspect.cleandoc(kind.__doc__),
        args=arguments,
        default=default,
        add_help=True,
    )
    for field in dataclasses.fields(kind):  # to tyro, none are also some
        if field.default is dataclasses.MISSING and getattr(settings, field.name) == ():
            advice = f"`pellucid {name} --help` tells what they are."
            raise PellucidError(problem(f"pellucid {name}", f"no {field.name}", "one or more", advice))
    return settings


def take_config(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """Cut `--config FILE` out of the arguments."""
    for place, argument in enumerate(arguments):
        if argument == "--config":
            if place + 1 == len(arguments):
                raise PellucidError("--config needs a file: --config settings.toml")
            return Path(arguments[place + 1]), arguments[:place] + arguments[place + 2 :]
        if argument.startswith("--config="):
            return Path(argument.split("=", 1)[1]), arguments[:place] + arguments[place + 1 :]
    return None, arguments
