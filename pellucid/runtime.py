"""What every stage needs of a program: errors that say what to do, atomic files, progress, and what people see.

Definitions only; nothing runs at import.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class PellucidError(Exception):
    """Something the user can mend. The command line prints it as one message and exits with code 2."""


class DataError(PellucidError):
    """A data file that cannot be used as asked."""


class ConfigError(PellucidError):
    """A setting that is unknown, missing or out of range."""


def problem(where: str | Path, found: str, expected: str, advice: str) -> str:
    """One message that names the place, what was found, what was expected, and what to do."""
    return f"{where}: found {found}; expected {expected}. {advice}"


# ---------------------------------------------------------------- files


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well it is synced and renamed to `path`.

    Whoever reads `path` sees the old content or the new one, never a half. Who may read it stays as it was; of a new
    file the umask says.
    """
    path = Path(path)
    with explained_disk_errors(path):
        if path.exists() and not (path.is_file() or path.is_dir()):  # a file in the place of /dev/null would stay there
            advice = "Give the name of a file, old or new."
            raise PellucidError(problem(path, "a device or a pipe", "a place for a file", advice))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        temporary.touch(exist_ok=False)
        mode = stat.S_IMODE((path if path.exists() else temporary).stat().st_mode)
        try:
            temporary.chmod(0o600)
            yield temporary
            _sync(temporary)
            temporary.chmod(mode)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; when the block ends well it takes the place of `path`."""
    path = Path(path)
    with explained_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        temporary.mkdir()
        try:
            yield temporary
            publish_folder(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def publish_folder(temporary: Path, path: Path) -> None:
    """Let a whole folder take the place of `path`, once all that it holds is on the disk; then that is, too.

    Where it cannot, `path` stays.
    """
    for inside in (*temporary.rglob("*"), temporary):
        _sync(inside)
    old = temporary.with_name(temporary.name + ".old")
    if path.exists():
        temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        path.replace(old)
    try:
        temporary.replace(path)
    except OSError:
        if old.exists():
            old.replace(path)
        raise
    _sync(path.parent)
    if old.exists():
        shutil.rmtree(old)


def _beside(path: Path) -> Path:
    """A name that nothing has, in the same folder."""
    return path.parent / f".{path.name}.{os.urandom(4).hex()}"


@contextlib.contextmanager
def held(path: Path, wait: bool = False) -> Iterator[None]:
    """Within the block no other process gets this far with the lock file `path`: it is refused, in a PellucidError.

    With `wait` it is not refused, but waits until the other one is through.

    The system takes the lock back when the process ends, however it ends. Where there are no such locks (Windows)
    nothing is refused.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with explained_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            by = file.read(20).strip()
            other = f"another process (number {by})" if by else "another process"
            if not wait:
                advice = "Wait until it ends, stop it, or give another --out."
                raise PellucidError(problem(path, f"a run that {other} is at", "none", advice)) from error
            inform(f"waiting for {other}, which is at {path.parent}")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            yield
            return
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _sync(path: Path) -> None:
    """See that a file is on the disk, or the names in a folder: a rename is lost with the power until they are."""
    if not path.is_dir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        return
    with contextlib.suppress(OSError):  # Windows opens no folder, and some disks of a network sync none
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def explained_disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a folder that cannot be written or a file in the way into a PellucidError with what to do."""
    advice = {
        errno.ENOSPC: "the disk is full; free some space, or give --out a folder on another disk",
        errno.EDQUOT: "the disk quota is used up; free some space, or give --out a folder on another disk",
        errno.EROFS: "the disk is read-only; give --out a folder that you may write to",
        errno.EACCES: "permission denied; give --out a folder that you may write to",
        errno.EPERM: "permission denied; give --out a folder that you may write to",
        errno.ENOENT: "no folder can be made there; give --out another place",
        errno.ENOTDIR: "a file stands where a folder is needed; give --out another name",
        errno.EISDIR: "a folder stands where a file is needed; give another name",
        errno.EBUSY: "a folder in use cannot be replaced, such as the one you are in; give --out another name",
        errno.EEXIST: "a file stands where a folder is needed; give --out another name",
    }
    try:
        yield
    except OSError as error:
        if error.errno not in advice:
            raise
        raise PellucidError(f"{path}: cannot write: {advice[error.errno]}. What was written before is kept.") from error


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, in UTF-8."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically, as indented JSON (NaN is refused: JSON has none)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; an error names the file and the line."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(
            problem(
                f"{path}, line {error.lineno}", f"broken JSON ({error.msg})", "valid JSON", "Mend or remove the file."
            )
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(problem(path, "bytes that are not UTF-8", "JSON in UTF-8", "Save it as UTF-8.")) from error
    except (ValueError, RecursionError) as error:
        raise DataError(problem(path, "a number or brackets without end", "valid JSON", "Mend the file.")) from error
    except FileNotFoundError as error:
        raise DataError(problem(path, "no file", "a JSON file", "Check the path.")) from error
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}.") from error


@contextlib.contextmanager
def utf8_input() -> Iterator[None]:
    """Within the block, what comes along standard input and is no UTF-8 is a DataError that names the byte."""
    try:
        yield
    except UnicodeDecodeError as error:
        found = f"the byte 0x{error.object[error.start]:02x} at {error.start:,}"
        raise DataError(problem("standard input", found, "text in UTF-8", "Convert it first.")) from error


LITTER = {".DS_Store", "desktop.ini", "Thumbs.db"}  # what systems leave in folders


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_run(out: Path, verb: str, config: dict[str, Any], data: dict[str, str]) -> None:
    """Write run.json: what was asked, with which settings and versions, on which data (names → SHA-256)."""
    import numpy
    import torch

    from pellucid.version import __version__

    versions = {"pellucid": __version__, "python": sys.version.split()[0], "torch": torch.__version__}
    record = {"verb": verb, "command": ["pellucid", *sys.argv[1:]], "config": config, "data": data}
    write_json(out / "run.json", {**record, "versions": {**versions, "numpy": numpy.__version__}})


def data_folder() -> Path | None:
    """The folder named by PELLUCID_DATA, where data sets and vocabularies are looked for before any download."""
    name = os.environ.get("PELLUCID_DATA")
    return Path(name) if name else None


def cache_folder() -> Path:
    """Where downloads are kept: PELLUCID_CACHE, or `pellucid` in the user's own cache folder."""
    own = os.environ.get("PELLUCID_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pellucid"


# ---------------------------------------------------------------- what people see


def speaks() -> bool:
    """Whether this process tells what happens: of those that torchrun started, the first one does."""
    return int(os.environ.get("RANK", "0")) == 0


def terminal() -> Console:
    """A console on stderr: stdout is left to results."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, quiet=not speaks())


def progress_bar(*columns: Any, show: bool = True) -> Progress:
    """A progress bar on stderr that stays silent when stderr is not a terminal, or when it is not to be shown."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    shown = columns or (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[note]}", markup=False),
        TimeRemainingColumn(),
    )
    console = terminal()
    return Progress(*shown, console=console, disable=not (show and console.is_terminal), transient=True)


def inform(message: str) -> None:
    """One plain line on stderr (text from data or a model stays text: no markup, no escape sequences).

    Where nobody reads it any more (`2>&1 | tee log`, and tee has ended) it is lost, and the work goes on.
    """
    if speaks():
        with contextlib.suppress(BrokenPipeError):
            print(printable(message), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """`text` with control characters made visible, so that a terminal shows it and never obeys it."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


class Verbatim(str):
    """What a verb says that is printed as it is: it was made printable part by part, or goes where no terminal is."""


def one_line_of_json(value: Any) -> str:
    """JSON that is the same to a program, and holds no character that a terminal would obey, or stdout cannot say.

    NaN, which JSON has not, becomes null.
    """
    whole = (sys.stdout.encoding or "").lower() in ("utf-8", "utf8")
    text = json.dumps(without_nan(value), ensure_ascii=not whole, allow_nan=False)
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def without_nan(value: Any) -> Any:
    """The same value with None for numbers that JSON has not: NaN and the infinities."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(value: Any) -> str:
    """Something out of a file or a network, short and harmless on a terminal."""
    try:
        text = printable(str(value))
    except ValueError:  # a number of thousands of digits
        text = "a huge number"
    return text if len(text) <= 80 else f"{text[:77]}…"
