"""Files from the Hugging Face hub, or a mirror of it (HF_ENDPOINT); who asks says which of a model's files it takes.

Differs from huggingface_hub's own download in two ways: what broke off goes on where it was, in a later run, too, and
every file is checked by the hash that the hub gives for it. Everything comes from one commit, so that files fit.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pellucid.runtime import (
    DataError,
    PellucidError,
    cache_folder,
    explained_disk_errors,
    held,
    inform,
    problem,
    progress_bar,
    read_json,
    sha256,
    shown,
    write_json,
)

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata
    from rich.progress import Progress

NAMES = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "chat_template.jinja")
ATTEMPTS = 3  # of a file whose connection breaks off, in one run
TIMEOUT = 15  # seconds without an answer
FOLDER_INSTEAD = (
    "Without a network, copy the model's folder (config.json, model.safetensors, tokenizer.json) to this machine and "
    "name that folder; HF_ENDPOINT names a mirror, HTTPS_PROXY a proxy."
)
LOG_IN = (
    "If it is private or gated, ask for access on its page, then set HF_TOKEN to your token or run `hf auth login`."
)


@dataclass(frozen=True)
class Source:
    """A model on the hub: where, which, and the commit that is taken."""

    endpoint: str
    repo: str
    revision: str
    commit: str = ""


def repo_of(what: str) -> str | None:
    """The hub's id that a name stands for, or None where it can be none."""
    name = NAMES.get(what, what)
    return name if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name, re.ASCII) else None


def meant_by(where: str | Path) -> str | None:
    """The hub's id that a caller means, or None for a path: what exists here, or would lie in a folder that does."""
    path = Path(where)
    here = path.exists() or (len(path.parts) > 1 and path.parent.is_dir())
    return None if here or isinstance(where, Path) else repo_of(where)


# Told which model it is, the names of its files, and how to fetch one (name → where it lies), it fetches what it needs.
Choice = Callable[[str, set[str], Callable[[str], Path]], None]


def fetch(repo: str, revision: str, folder: Path, choose: Choice) -> tuple[Path, str]:
    """Fetch what `choose` takes of a model into a folder below `folder`; that folder, and the commit.

    Run again, it goes on where it was; run twice at a time, one waits for the other, and then finds the files there.
    PellucidError says what went wrong.
    """
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # of each new attempt it would say a line
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    source = Source(endpoint, repo, revision or "main")
    with _explained(source):
        commit, names = _listing(source)
    source = Source(endpoint, repo, source.revision, commit)
    target = folder / commit[:12]
    with held(folder / ".lock", wait=True), explained_disk_errors(target), progress_bar() as progress:
        target.mkdir(parents=True, exist_ok=True)
        choose(f"{repo} at {source.revision}", names, lambda name: _fetch_file(source, name, target, progress))
    return target, commit


def cached(repo: str, kind: str, choose: Choice) -> Path:
    """The folder of a model in the cache, fetched into it the first time; from then on no network is used.

    `kind` names what `choose` takes, so that a cache with a tokenizer alone is not taken for one with weights.
    """
    folder = cache_folder() / "hub" / repo.replace("/", "--")
    record = folder / f"{kind}.json"
    if record.is_file():
        commit = str(read_json(record)["commit"])
        if (folder / commit[:12]).is_dir():
            return folder / commit[:12]
    inform(f"{repo}: fetching it from the hub into {folder}")
    target, commit = fetch(repo, "main", folder, choose)
    write_json(record, {"repo": repo, "commit": commit})
    return target


def tokenizer_files(where: str, names: set[str], take: Callable[[str], Path]) -> None:
    """The choice of a tokenizer's files."""
    for name in TOKENIZER_FILES:
        if name in names:
            take(name)
    if not names & {"tokenizer.json", "vocab.json"}:
        raise DataError(problem(where, "no tokenizer", "tokenizer.json", "Choose another model."))


def _listing(source: Source) -> tuple[str, set[str]]:
    """The commit that the revision stands for, and the names of its files."""
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

    url = f"{source.endpoint}/api/models/{source.repo}/revision/{quote(source.revision, safe='')}"
    options: dict[str, Any] = {"headers": build_hf_headers(), "timeout": TIMEOUT}
    answer = http_backoff("GET", url, max_retries=ATTEMPTS, retry_on_exceptions=(), **options)
    hf_raise_for_status(answer)
    try:
        content = answer.json()
        commit, names = content["sha"], {str(file["rfilename"]) for file in content["siblings"]}
    except (ValueError, KeyError, TypeError) as error:
        raise _no_hub(source, "an answer without a commit and files") from error
    if not isinstance(commit, str) or not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise _no_hub(source, f"the commit {shown(repr(commit))}")
    return commit, names


def _no_hub(source: Source, found: str) -> PellucidError:
    return DataError(problem(source.endpoint, found, "a hub's answer", "Check HF_ENDPOINT, and proxies on the way."))


# ---------------------------------------------------------------- one file


def _fetch_file(source: Source, name: str, target: Path, progress: Progress) -> Path:
    """Fetch a file, or what is still missing of it, and check it by the hub's size and hash."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(source.repo, name, revision=source.commit, endpoint=source.endpoint)
    with _explained(source, name):
        facts = get_hf_file_metadata(url, timeout=TIMEOUT, endpoint=source.endpoint, retry_on_errors=True)
    file, part = target / name, target / f"{name}.part"
    if file.is_file() and not _difference(file, facts):
        return file
    task = progress.add_task(name, total=facts.size, note="")
    with _explained(source, name, part, facts.size):
        _receive(url, part, facts.size, lambda done: progress.update(task, completed=done))
    if difference := _difference(part, facts):
        part.unlink()
        advice = "It was thrown away. Run the command again; if it stays so, the hub or what is between is broken."
        raise DataError(problem(f"{source.endpoint}/{source.repo}, {name}", *difference, advice))
    part.replace(file)
    return file


def _receive(url: str, part: Path, size: int | None, advance: Any) -> None:
    """Read `url` into `part`, from where `part` ends; a connection that breaks off is taken up again."""
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(1, ATTEMPTS + 1):
        if size is not None and part.is_file() and part.stat().st_size >= size:
            return
        try:
            _append(url, part, size, advance)
        except HfHubHTTPError:
            raise
        except _network_error():
            if attempt == ATTEMPTS:
                raise
            time.sleep(1)
        else:
            return


def _append(url: str, part: Path, size: int | None, advance: Any) -> None:
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

    done = part.stat().st_size if part.is_file() else 0
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    options: dict[str, Any] = {"headers": headers, "timeout": TIMEOUT}
    with http_stream_backoff("GET", url, max_retries=ATTEMPTS, retry_on_exceptions=(), **options) as answer:
        hf_raise_for_status(answer)
        with part.open("ab" if answer.status_code == 206 else "wb") as file:
            for chunk in answer.iter_bytes():
                file.write(chunk)
                advance(file.tell())
                if size is not None and file.tell() > size:
                    return  # more than was announced: the check will say so


def _difference(file: Path, facts: HfFileMetadata) -> tuple[str, str] | None:
    """What is found and what was expected, where size or hash are not those that the hub gave."""
    size = file.stat().st_size if file.is_file() else 0
    if facts.size is not None and size != facts.size:
        return f"{size:,} bytes", f"{facts.size:,}"
    expected = facts.etag or ""
    if re.fullmatch("[0-9a-f]{64}", expected):
        found, kind = sha256(file), "SHA-256"
    elif re.fullmatch("[0-9a-f]{40}", expected):  # git's own hash of a small file
        found, kind = hashlib.sha1(b"blob %d\0" % size + file.read_bytes()).hexdigest(), "git hash"
    else:
        inform(f"{file.name.removesuffix('.part')}: the hub gave no hash; only its size is checked.")
        return None
    return None if found == expected else (f"{kind} {found}", expected)


# ---------------------------------------------------------------- what can go wrong


def _network_error() -> type[Exception]:
    """The exception of the HTTP library below huggingface_hub, whichever it is (it has changed twice)."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


@contextlib.contextmanager
def _explained(source: Source, name: str = "", part: Path | None = None, size: int | None = None) -> Iterator[None]:
    """Turn what the network does into one message that says what to do."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    what = f"{source.repo}{f', {name}' if name else ''}"
    try:
        yield
    except OfflineModeIsEnabled as error:
        advice = f"Unset it to download. {FOLDER_INSTEAD}"
        raise PellucidError(problem(what, "HF_HUB_OFFLINE set", "leave to use the network", advice)) from error
    except HfHubHTTPError as error:
        raise PellucidError(_refused(source, what, error)) from error
    except _network_error() as error:
        found, advice = f"no folder of that name here, and no connection to {source.endpoint}", FOLDER_INSTEAD
        if part and part.is_file():
            found = f"a connection to {source.endpoint} that broke off"
            kept = f"{part.stat().st_size:,} of {size or 0:,} bytes are kept"
            advice = f"{kept}; the same command goes on from there. {FOLDER_INSTEAD}"
        why = shown(str(error) or type(error).__name__)
        raise PellucidError(problem(what, f"{found} ({why})", "its answer", advice)) from error


def _refused(source: Source, what: str, error: Any) -> str:
    """What a hub's answer of an error means, by its status and its own word for it."""
    status, word = error.response.status_code, error.response.headers.get("X-Error-Code", "")
    found = f"the answer {status} from {source.endpoint}"
    if status in (401, 403) or word == "GatedRepo":
        expected = "a model that everybody, or your token, may read"
        return problem(what, found, expected, f"Check the name: there may be no such model. {LOG_IN}")
    if word == "RevisionNotFound":
        return problem(what, f"no revision {source.revision!r}", "a branch, tag or commit", "Check --revision.")
    if word == "EntryNotFound":
        return problem(what, "no such file on the hub", "it", "The model is not whole there; try another --revision.")
    if status == 404:
        advice = f"Check the name; there is no folder of that name here, either. {LOG_IN}"
        return problem(what, found, "a model of that name, with that file", advice)
    if status == 429 or status >= 500:
        advice = f"It is overloaded or down: try again later; the download goes on where it was. {FOLDER_INSTEAD}"
        return problem(what, found, "the file", advice)
    return problem(what, f"{found}: {shown(error)}", "the file", FOLDER_INSTEAD)
