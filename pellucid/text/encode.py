"""Text of any size → token shards, on one machine or many, in memory that does not grow with the text.

The input is divided into units, each of which becomes one shard of each split, whoever encodes it: so the shards are
the same, byte for byte, for any number of workers, and a stopped run goes on at the first shard that is missing.
A first look over all units finds which documents belong to val and test (`held_out.py`); the second encodes, and
leaves out what is nearly the same there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pellucid.runtime import (
    DataError,
    explained_disk_errors,
    inform,
    problem,
    publish_folder,
    read_json,
    sha256,
    write_json,
)
from pellucid.text.content import Source, whole
from pellucid.text.documents import SPLITS, Document, read_slice
from pellucid.text.held_out import HeldOut, Shares, find_held_out, groups
from pellucid.text.runners import Runner, run_with_ray, run_with_threads
from pellucid.text.shard_writer import (
    require_place_for_shards,
    tell_replaced,
    write_description,
    write_shards,
    write_unit,
)
from pellucid.text.shards import VERSION, Shards
from pellucid.text.sources import Unit, plan_units
from pellucid.text.splits import FEW, check_shares, split_documents
from pellucid.text.tokenizer import END_OF_TEXT, Tokenizer

UNIT_BYTES = 8 << 20  # on disk; larger where that makes more than MOST_UNITS
MOST_UNITS = 2_000
SMALL = 8 << 20  # bytes of text; one or two documents of this size are divided in memory
CUT_NEAR = 1 << 16  # bytes before a place that is meant within which a paragraph's end is looked for
FIVE_PERCENT = Shares()
Json = dict[str, Any]
Stamps = tuple[tuple[str, int, int], ...]  # path, size, time of change


def encode_sources(
    sources: Sequence[Source],
    tokenizer: Tokenizer,
    out: Path,
    shares: Shares = FIVE_PERCENT,
    workers: int = 1,
    engine: Literal["threads", "ray"] = "threads",
    unit_bytes: int = 0,
) -> Shards:
    """Encode all text of `sources` into a folder of shards, and open it; the folder appears when it is whole.

    Raises DataError for text that cannot be read or divided, and where `out` holds something other than shards. What
    was done before an error or a stop lies beside `out`, and the same call goes on from there.
    """
    check_shares(shares.val, shares.test)
    out = Path(out).resolve()
    require_place_for_shards(out)
    tell_replaced(out, tokenizer)
    sources = [replace(source, path=source.path.resolve(), name=str(source)) for source in sources]
    run: Runner = run_with_ray if engine == "ray" else partial(run_with_threads, workers)
    unit_bytes = unit_bytes or max(UNIT_BYTES, sum(source.size for source in sources) // MOST_UNITS)
    before = stamps(source.path for source in sources)
    if not has_few_documents(sources):
        units = plan_units(sources, unit_bytes)
        held_out = find_held_out(units, shares, run)
        work = Work(tuple(units), (None,) * len(units), held_out, tokenizer, before)
    elif has_little_text(sources):
        return write_shards(split_documents(read_whole(sources), shares.val, shares.test), tokenizer, out)
    else:
        parts = divide_by_place(sources, shares)
        known = [(unit, split) for split in SPLITS for unit in plan_units(parts[split], unit_bytes)]
        work = Work(
            tuple(unit for unit, _ in known), tuple(split for _, split in known), HeldOut(shares), tokenizer, before
        )
    return encode_work(work, shares, out, run)


# ---------------------------------------------------------------- what is to be done


@dataclass(frozen=True)
class Work:
    """Units, for each the split that it belongs to where that is known beforehand, and what encoding them needs."""

    units: tuple[Unit, ...]
    splits: tuple[str | None, ...]
    held_out: HeldOut
    tokenizer: Tokenizer
    stamps: Stamps

    def fingerprint(self) -> str:
        """SHA-256 of all that decides the shards; files by size and time of change."""
        units = [[(repr(part.source), part.start, part.end) for part in unit.slices] for unit in self.units]
        content = [VERSION, self.tokenizer.fingerprint(), asdict(self.held_out.shares), units, self.splits, self.stamps]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def stamps(files: Iterable[Path]) -> Stamps:
    """Name, size and time of change of each file. DataError for one that has vanished."""
    found = []
    for file in files:
        try:
            about = file.stat()
        except OSError as error:
            raise DataError(f"{file}: cannot read: {error.strerror or error}. Leave it there to the end.") from error
        found.append((str(file), about.st_size, about.st_mtime_ns))
    return tuple(found)


def require_unchanged(before: Stamps) -> None:
    """DataError for a file that is no longer what it was when the run began."""
    now = stamps(Path(name) for name, _, _ in before)
    for (name, *was), (_, *found) in zip(before, now, strict=True):
        if was != found:
            expected, advice = "one that stays as it is", "Wait until it is whole, then run this again."
            raise DataError(problem(name, "a file that changed while it was encoded", expected, advice))


# ---------------------------------------------------------------- few documents


def has_few_documents(sources: Sequence[Source]) -> bool:
    """Whether there are so few documents, and none with a split of its own, that each has to be divided itself."""
    if len(sources) >= FEW:
        return False
    count = 0
    for source in sources:
        plain = source.format == "text" and not _contains(source, END_OF_TEXT.encode())
        for document in [Document("", "")] if plain else read_slice(whole(source)):
            count += not document.continues
            if count >= FEW or document.split:
                return False
    return True


def _contains(source: Source, wanted: bytes) -> bool:
    tail = b""
    for block in source.content():
        if wanted in block or wanted in tail + block[: len(wanted)]:
            return True
        tail = (tail + block[-len(wanted) :])[-len(wanted) :]
    return False


def has_little_text(sources: Sequence[Source]) -> bool:
    """Whether all text, unpacked, is so little that it is divided in memory."""
    size = 0
    for source in sources:
        for block in source.content(0, SMALL + 1):
            size += len(block)
    return size <= SMALL


def read_whole(sources: Sequence[Source]) -> list[Document]:
    """All documents, each in one piece."""
    documents: list[list[Document]] = []
    for document in (document for source in sources for document in read_slice(whole(source))):
        if document.continues:
            documents[-1].append(document)
        else:
            documents.append([document])
    return [replace(parts[0], text="".join(part.text for part in parts)) for parts in documents]


def divide_by_place(sources: Sequence[Source], shares: Shares) -> dict[str, list[Source]]:
    """One or two long text files, each cut at paragraphs: its end becomes test, what comes before that val."""
    parts: dict[str, list[Source]] = {split: [] for split in SPLITS}
    for source in sources:
        if source.format != "text" or not source.divisible:
            found = "one or two long documents" + (f" in {source.compression}" if source.compression else "")
            expected = f"more documents, or a plain text file (any file of up to {SMALL:,} bytes)"
            raise DataError(problem(str(source), found, expected, "Unpack it, or divide it into documents."))
        size = source.end - source.start
        test = _paragraph_before(source, source.end - int(size * shares.test)) if shares.test else source.end
        val = _paragraph_before(source, test - int(size * shares.val)) if shares.val else test
        for split, start, end in (("train", source.start, val), ("val", val, test), ("test", test, source.end)):
            if start < end:
                parts[split].append(replace(source, start=start, end=end))
    return parts


def _paragraph_before(source: Source, place: int) -> int:
    """The last end of a paragraph before `place`; of a line, a word, a character where none is near."""
    begin = max(source.start, place - CUT_NEAR)
    near = b"".join(source.content(begin, place))
    for mark in (b"\n\n", b"\r\n\r\n", b"\n", b" "):
        if (found := near.rfind(mark)) >= 0:
            return begin + found + len(mark)
    return begin + max((i for i, byte in enumerate(near) if byte & 0xC0 != 0x80), default=0)


# ---------------------------------------------------------------- encoding


def encode_unit(unfinished: Path, work: Work, number: int) -> Json:
    """Encode one unit, unless that was done before; what is in its shards, and how many documents were left out."""
    record = unfinished / f"unit-{number:05d}.json"
    if record.is_file():
        about: Json = read_json(record)
        if all(_is_whole(unfinished / "shards" / name, found) for name, found in _files(about)):
            return about
    dropped = {"train": 0, "val": 0}
    documents = chosen_documents(work, number, dropped)
    shards = write_unit(documents, work.tokenizer, unfinished / "shards", number, closing_splits(work, number))
    about = {"shards": shards, "dropped": dropped}
    write_json(record, about)
    return about


def _files(about: Json) -> Iterator[tuple[str, str]]:
    """Name and SHA-256 of each file of a unit."""
    for shard in about["shards"].values():
        yield from shard["files"].items()


def _is_whole(file: Path, expected: str) -> bool:
    """Whether a file is what was written: after a power cut it may be less."""
    return file.is_file() and sha256(file) == expected


def closing_splits(work: Work, number: int) -> tuple[str, ...]:
    """The splits that end with this unit."""
    ends = dict.fromkeys(SPLITS, len(work.units) - 1)
    ends.update({split: place for place, split in enumerate(work.splits) if split})
    return tuple(split for split, end in ends.items() if end == number)


def chosen_documents(work: Work, number: int, dropped: dict[str, int]) -> Iterator[tuple[str, Document]]:
    """The documents of a unit that are kept, each with its split; how many are not is added to `dropped`."""
    known = work.splits[number]
    current = known or work.held_out.continued(number)
    for group, heads in groups(work.units[number]):
        begun = [document for document in group if not document.continues]
        splits: list[str | None] = [known] * len(begun)
        if known is None:
            wanted, _ = work.held_out.shares.of(begun, heads)
            splits = work.held_out.keep(wanted, heads)
            for split, kept in zip(wanted, splits, strict=True):
                if kept is None:
                    dropped[split] += 1
        chosen = iter(splits)
        for document in group:
            current = current if document.continues else next(chosen)
            if current is not None:
                yield current, document


def encode_work(work: Work, shares: Shares, out: Path, run: Runner) -> Shards:
    """Encode all units into a folder beside `out`; once they are whole, the shards take the place of `out`."""
    unfinished = out.with_name(f".{out.name}.unfinished")
    shards = unfinished / "shards"
    with explained_disk_errors(unfinished):
        begin(unfinished, work)
        records = run(partial(encode_unit, unfinished), work, len(work.units), "encoding")
        require_unchanged(work.stamps)
        tell(records, shares, out)
        written = {name for record in records for name, _ in _files(record)}
        for file in shards.iterdir():
            if file.name not in written:  # left behind by a run that was killed
                file.unlink()
        write_description([record["shards"] for record in records], work.tokenizer, shards)
        publish_folder(shards, out)
        shutil.rmtree(unfinished)
    return Shards.open(out, verify=False)


def begin(unfinished: Path, work: Work) -> None:
    """Make the folder, or find in it what the same run has done before; what another one left there is removed."""
    plan = {"fingerprint": work.fingerprint()}
    try:
        same = read_json(unfinished / "plan.json") == plan
    except DataError:
        same = False
    if not same and unfinished.exists():
        shutil.rmtree(unfinished)
    write_json(unfinished / "plan.json", plan)
    (unfinished / "shards").mkdir(exist_ok=True)
    if done := len(list(unfinished.glob("unit-*.json"))):
        inform(f"{done:,} of {len(work.units):,} parts were encoded before; going on from there.")


def tell(records: Sequence[Json], shares: Shares, out: Path) -> None:
    """Say what was left out, and which split is empty. DataError where nothing is left to train on."""
    dropped = {split: sum(record["dropped"][split] for record in records) for split in ("train", "val")}
    if any(dropped.values()):
        counts = " and ".join(f"{count:,} of {split}" for split, count in dropped.items() if count)
        where = "val or test" if dropped["train"] else "test"
        inform(f"{counts}: near copies of documents in {where}; they were left out.")
    there = {split for record in records for split, about in record["shards"].items() if about["bytes"]}
    if "train" not in there:
        found = "no document that is left to train on"
        raise DataError(problem(out, found, "text for train, val and test", "Give more text, or smaller shares."))
    for split, share in (("val", shares.val), ("test", shares.test)):
        if share and split not in there:
            inform(f"{split} is empty: there are too few documents that differ.")
