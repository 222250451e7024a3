"""One quickstart on the disk: its folder, its settings, the results of its steps, and the clock.

Each step leaves its results in a file, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.compute import peak_memory_bytes, settle_threads
from pellucid.config import as_dict
from pellucid.finetune.instructions import read_instructions, split_examples
from pellucid.finetune.labelled import read_labelled
from pellucid.finetune.splits import split_labelled
from pellucid.options import Quickstart
from pellucid.runtime import (
    ConfigError,
    PellucidError,
    printable,
    problem,
    read_json,
    sha256,
    write_json,
)
from pellucid.text.documents import read_documents
from pellucid.text.sources import find_files
from pellucid.text.splits import split_documents

Results = dict[str, Any]


@dataclass
class Run:
    """One quickstart: its options, its folder, and the results of the steps done so far."""

    options: Quickstart
    results: dict[str, Results]
    news: bool = False  # whether this sitting did any step

    @classmethod
    def open(cls, options: Quickstart) -> Run:
        """Begin in `options.out`, or go on there; a folder of other settings is refused."""
        if not 0 <= options.minutes < float("inf"):
            raise ConfigError(problem("--minutes", str(options.minutes), "0 or more", "5.2 is a good first run."))
        hashes = {str(file): sha256(file) for file in input_files(options)}
        settings = {**as_dict(options), "out": "", "json": False, "files": hashes}
        file = options.out / "results" / "settings.json"
        begun = (options.out / "results" / "text.json").is_file()
        if begun and (before := read_json(file)) != settings:
            other = ", ".join(sorted(name for name in settings if before.get(name) != settings[name]))
            raise PellucidError(
                f"{options.out}: holds a quickstart with other settings or files ({other}). Give another --out, or "
                "remove it."
            )
        if not file.is_file() and options.out.is_dir() and any(options.out.iterdir()):
            raise PellucidError(f"{options.out}: is not empty and holds no quickstart. Give another --out.")
        if not begun:
            check_inputs(options)  # a mistake in any of the files should show now, not after the pretraining
            write_json(file, settings)
        return cls(options, {})

    @property
    def out(self) -> Path:
        """The folder."""
        return self.options.out

    @property
    def minutes(self) -> float:
        """The time to aim at for everything."""
        return self.options.minutes or (18.0 if self.options.text else 5.2)

    def step(self, name: str, title: str, work: Callable[[Run], Results], show: Callable[[Results], str]) -> None:
        """Do a step, or take its result from an earlier, stopped run; then show it."""
        say(f"\n── {title}")
        file = self.out / "results" / f"{name}.json"
        if file.is_file():
            self.results[name] = read_json(file)
            say("(done before)")
        else:
            self.news = True
            settle_threads()
            with self.clock(name) as seconds:
                result = work(self)
            peak = round(peak_memory_bytes() / 2**30, 2)
            self.results[name] = {**result, "seconds": round(seconds(), 2), "peak_memory_gb": peak}
            write_json(file, self.results[name])
        say(show(self.results[name]))

    @contextmanager
    def clock(self, name: str) -> Iterator[Callable[[], float]]:
        """Counts the seconds of a step over all its sittings; what a stopped one took is kept in a file."""
        file, began = self.out / "results" / f"{name}.stopped.json", time.monotonic()
        before = float(read_json(file)["seconds"]) if file.is_file() else 0.0
        try:
            yield lambda: before + time.monotonic() - began
        except BaseException:
            with suppress(PellucidError, OSError):
                write_json(file, {"seconds": before + time.monotonic() - began})
            raise
        file.unlink(missing_ok=True)

    def spent(self) -> float:
        """Seconds of the steps done so far."""
        return float(sum(result["seconds"] for result in self.results.values()))


def input_files(options: Quickstart) -> Iterator[Path]:
    """All files of the user's own, those in folders, too."""
    if options.text:
        yield from (file for file, _ in find_files(options.text))
    for path in filter(None, (options.labels, options.instructions)):
        yield from (file for file in (sorted(path.rglob("*.txt")) if path.is_dir() else [path]) if file.is_file())


def check_inputs(options: Quickstart) -> None:
    """Read all files of the user's own once, for the errors in them."""
    if options.text:
        split_documents(read_documents(options.text))
    if options.labels:
        split_labelled(read_labelled(options.labels), seed=options.seed)
    if options.instructions:
        split_examples(read_instructions(options.instructions), seed=options.seed)


def say(text: str) -> None:
    """A line about the progress, on stderr: stdout is left to the result."""
    print(printable(text), file=sys.stderr, flush=True)
