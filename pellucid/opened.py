"""The runs that a server has opened: names for their folders, and what was loaded from them, each once.

Shared by the server's own routes and the workbench's pages, which know nothing of each other. A name that a client
sends is only ever looked up here: it never becomes part of a path.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pellucid.runtime import ConfigError, PellucidError, problem

T = TypeVar("T")
P = ParamSpec("P")

FILES = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "quantized.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
PARTS = ("classifier", "assistant")  # models in the folder of a model that a quickstart wrote
WORKERS = 2  # threads for work that is not decoding
WAITING = 64  # pieces of work that may wait for them


class BusyError(PellucidError):
    """More is asked for than can wait; `seconds` is when to try again."""

    def __init__(self, message: str, seconds: int = 1) -> None:
        super().__init__(message)
        self.seconds = seconds


class UnknownRunError(PellucidError):
    """A name that stands for no opened run."""


class Runs(Mapping[str, Path]):
    """Name → folder, in the order of the command line. `load` and `aside` may be called from any thread and task.

    What the routes of a page do with it: a coroutine gets its numbers by `await runs.aside(work, ...)`, where `work`
    is a plain function that runs in a thread, and calls `runs.load(name, GPT.load)` for a model and
    `runs.load(name, Tokenizer.load)` for its tokenizer: loaded at the first call, shared by all later ones, loaded
    again when a training run has replaced the files since. So a model from here is only read, never changed (hooks go
    on a copy, or are held by a lock of the caller's). An error for the client is a PellucidError; the server turns it
    into an answer: UnknownRunError 404, BusyError 429, others 400.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        """ConfigError where there is none, or one is given twice."""
        self._folders = name_folders(folders)
        self._loaded: dict[tuple[str, Any], tuple[Any, Any]] = {}  # (name, how) → the files' state, what was loaded
        self._locks: dict[tuple[str, Any], threading.Lock] = {}
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="pellucid-aside")
        self._pending = threading.Semaphore(WORKERS + WAITING)

    def __getitem__(self, name: str) -> Path:
        return self._folders[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)

    def folder(self, name: str) -> Path:
        """The folder of a name that a client sent; UnknownRunError where there is none."""
        if name not in self._folders:
            known = ", ".join(map(repr, self._folders))
            raise UnknownRunError(problem("model", repr(name), f"one that is open ({known})", "Choose one of these."))
        return self._folders[name]

    def load(self, name: str, how: Callable[[Path], T]) -> T:
        """What `how` makes of the run's folder (GPT.load, Tokenizer.load, Classifier.load …). Blocks while it loads."""
        folder = self.folder(name)
        key = name, how
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            now = state_of(folder)
            if key not in self._loaded or self._loaded[key][0] != now:
                self._loaded[key] = now, how(folder)
            loaded: T = self._loaded[key][1]
            return loaded

    def loaded(self, name: str, how: Callable[[Path], T]) -> T | None:
        """What `load` would give, where it would give it at once; None where it would have to load first."""
        folder = self.folder(name)
        state, loaded = self._loaded.get((name, how), (None, None))
        return loaded if loaded is not None and state == state_of(folder) else None

    async def aside(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work(...)`, done in a thread while the event loop goes on. BusyError where too much waits."""
        if not self._pending.acquire(blocking=False):
            raise BusyError("the server has too much to do; try again in a moment.")
        try:
            future = self._workers.submit(work, *args, **kwargs)
        except BaseException:
            self._pending.release()
            raise
        future.add_done_callback(lambda _: self._pending.release())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Begin nothing more."""
        self._workers.shutdown(wait=False, cancel_futures=True)


def name_folders(folders: Sequence[Path]) -> dict[str, Path]:
    """A short name for each folder: its own, with as many of its parents' before it as make it the only one."""
    whole = [folder.resolve() for folder in folders]
    twice = next((folder for place, folder in enumerate(whole) if folder in whole[:place]), None)
    if not whole or twice is not None:
        found = "no run" if twice is None else f"{twice} twice"
        raise ConfigError(problem("RUN", found, "one or more, each once", "Such as runs/quickstart."))
    for length in range(1, max(len(folder.parts) for folder in whole) + 1):
        names = ["-".join(folder.parts[-length:]).lstrip("/-") for folder in whole]
        if len(set(names)) == len(names):
            return dict(zip(names, folders, strict=True))
    raise ConfigError(problem("RUN", "folders whose names are alike", "names that differ", "Rename one of them."))


def with_parts(folders: Sequence[Path]) -> list[Path]:
    """The folders, and behind each that a quickstart wrote the classifier and the assistant in it."""
    parts = [folder / part for folder in folders for part in PARTS if (folder / part / "config.json").is_file()]
    given = {folder.resolve() for folder in folders}
    return [*folders, *(part for part in parts if part.resolve() not in given)]


def state_of(folder: Path) -> list[tuple[int, int, int] | None]:
    """What changes when one of a model's files is replaced."""
    return [file_state(folder / file) for file in FILES]


def file_state(file: Path) -> tuple[int, int, int] | None:
    """The same of one file; None where it is not there."""
    try:
        info = file.stat()
    except (OSError, ValueError):  # a name with a null character is no file's
        return None
    return info.st_mtime_ns, info.st_size, info.st_ino
