"""`pellucid doctor`: what is in a data file, and what to mend before anything is trained on it.

Unlike the readers it goes on behind what is bad, and counts it.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.machine import describe_machine
from pellucid.options import Doctor
from pellucid.runtime import ConfigError, DataError, problem
from pellucid.text.content import NotUTF8Error, Slice, Source, whole
from pellucid.text.counting import late_progress
from pellucid.text.documents import to_document
from pellucid.text.findings import Findings, as_text, spread, to_mend
from pellucid.text.leaks import HEAD_CHARACTERS, NEAR, NearIndex, Signatures, signatures
from pellucid.text.readers import LABEL_FIELDS, read_records, read_text_parts
from pellucid.text.sources import describe, fields, find_files, look, require_text_field
from pellucid.text.tokenizer import Tokenizer

QUESTIONS = ("instruction", "prompt", "question")
ANSWERS = ("output", "response", "answer", "completion", "chosen")
CONVERSATIONS = ("messages", "conversations", "conversation")
SPEAKERS = ("assistant", "gpt", "chatgpt", "model", "bot")
Fault = Callable[[dict[str, Any]], str]


class Examination:
    """All that is gathered while the files behind one argument are read, one document after the other."""

    def __init__(
        self, path: Path, tokenizer: Tokenizer | None = None, compared: bool = False, fault: Fault = lambda record: ""
    ) -> None:
        self.path, self.tokenizer, self.compared, self.fault = path, tokenizer, compared, fault
        self.sources: list[Source] = []
        self.bad, self.empty, self.twice, self.unanswered = Findings(), Findings(), Findings(), Findings()
        self.characters, self.tokens = array("q"), array("q")
        self.seen: dict[bytes, str] = {}  # digest of a text → where it was first
        self.digests: list[tuple[str, bytes]] = []  # place and digest of each text that is to be compared
        self.signatures: list[Signatures] = []
        self.labels: Counter[str] = Counter()
        self.instructions = 0
        self.encoding = "ASCII"
        self._hash: Any = None  # of the document being read, until it is finished
        self._place = self._head = ""
        with late_progress("examining") as self._tell:
            for file, name in find_files([path]):
                self._examine(file, name)

    def _note(self, error: DataError) -> None:
        self.bad.add(str(error))
        if isinstance(error, NotUTF8Error):
            self.encoding = "not UTF-8"

    def _examine(self, file: Path, name: str) -> None:
        try:
            source = with_guessed_columns(look(file, name=name))
            self.sources.append(source)
            before = len(self.characters) + self.empty.count + self.bad.count
            for place, text, continues in self._texts(whole(source)):
                if not continues:
                    self._finish()
                    self._begin(place)
                self._add(text)
                self._tell(f"{len(self.characters):,} texts")
            self._finish()
            if len(self.characters) + self.empty.count + self.bad.count == before:
                self.empty.add(name)
        except DataError as error:
            self._finish()
            self._note(error)

    def _texts(self, part: Slice) -> Iterator[tuple[str, str, bool]]:
        """Each text with its place, and whether it goes on from the one before; labels and answers are counted."""
        source = part.source
        if source.format == "text":
            for text, continues in read_text_parts(part, self._note):
                yield str(source), text, continues
            return
        conversation = source.text_field is None and is_conversation(fields(source))
        if not conversation:
            require_text_field(source)
        for place, record in read_records(part, self._note):
            try:
                text = (
                    self._conversation(record, source, place) if conversation else self._labelled(record, source, place)
                )
            except DataError as error:
                self._note(error)
                continue
            if text.strip():
                yield source.where(place), text, False
            else:
                self.empty.add(source.where(place))

    def _labelled(self, record: Any, source: Source, place: str) -> str:
        text = to_document(record, source, place).text
        name = next((name for name in record if name.lower() in LABEL_FIELDS), None)
        if name is not None:
            self.labels[str(record[name]).strip()] += 1
        return text

    def _conversation(self, record: Any, source: Source, place: str) -> str:
        if not isinstance(record, dict) or not is_conversation(record):
            found = f"the keys {', '.join(record)}" if isinstance(record, dict) else f"a JSON {type(record).__name__}"
            raise DataError(problem(source.where(place), found, "an instruction and an answer", "Mend or remove it."))
        said, answered = read_conversation(record)
        text = to_document({"text": said}, source, place).text
        self.instructions += 1
        if not answered:
            self.unanswered.add(source.where(place))
        elif fault := self.fault(record):
            raise DataError(f"{source.where(place)}: {fault}")
        return text

    def _begin(self, place: str) -> None:
        self._place, self._hash, self._head = place, hashlib.sha256(), ""
        self.characters.append(0)
        self.tokens.append(0)

    def _add(self, text: str) -> None:
        self._hash.update(text.encode())
        if self.encoding == "ASCII" and not text.isascii():
            self.encoding = "UTF-8"
        self.characters[-1] += len(text)
        if self.tokenizer is not None:
            self.tokens[-1] += len(self.tokenizer.encode_arrays([text])[0])
        if self.compared and len(self._head) < HEAD_CHARACTERS:
            self._head += text[: HEAD_CHARACTERS - len(self._head)]

    def _finish(self) -> None:
        if self._hash is None:
            return
        digest, self._hash = self._hash.digest()[:16], None
        if digest in self.seen:
            self.twice.add(f"{self._place} = {self.seen[digest]}")
        self.seen.setdefault(digest, self._place)
        if self.compared:
            self.digests.append((self._place, digest))
            self.signatures.append(signatures([self._head]))

    def report(self, context_length: int, against: Examination | None) -> dict[str, Any]:
        """What was found, as --json prints it."""
        found: dict[str, Any] = {
            "file": str(self.path),
            "found": describe(self.sources) if self.sources else "nothing that can be read",
            "encoding": self.encoding,
            "documents": len(self.characters),
            "bad": vars(self.bad),
            "empty": vars(self.empty),
            "characters": spread(self.characters),
            "duplicates": vars(self.twice),
        }
        if self.tokenizer is not None:
            found["tokens"] = spread(self.tokens)
        if context_length:
            found["longer_than_context"] = sum(count > context_length for count in self.tokens)
        if self.labels:
            found["labels"] = dict(self.labels.most_common())
        if self.instructions:
            found["instructions"] = {"records": self.instructions, "without_answer": vars(self.unanswered)}
        if against is not None:
            exact, near = leaks(self, against)
            found["leaks"] = {"against": str(against.path), "exact": vars(exact), "near": vars(near)}
        return {**found, "mend": to_mend(found)}


# ---------------------------------------------------------------- what a record is


def is_conversation(names: Any) -> bool:
    """Whether a record of these fields is an instruction with an answer, or messages."""
    has = set(names)
    return bool(has.intersection(CONVERSATIONS) or (has.intersection(QUESTIONS) and has.intersection(ANSWERS)))


def read_conversation(record: dict[str, Any]) -> tuple[str, bool]:
    """All that is said, and whether the assistant says something."""
    messages = next((record[name] for name in CONVERSATIONS if isinstance(record.get(name), list)), None)
    if messages is None:
        answer = next((str(record[name]) for name in ANSWERS if record.get(name)), "")
        said = [str(record.get(name) or "") for name in (*QUESTIONS, "input", "context")]
        return "\n".join(filter(str.strip, [*said, answer])), bool(answer.strip())
    said, answered = [], False
    for message in messages:
        if isinstance(message, dict):
            text = str(message.get("content") or message.get("value") or "")
            said.append(text)
            answered |= bool(text.strip()) and (message.get("role") or message.get("from")) in SPEAKERS
    return "\n".join(said), answered


def with_guessed_columns(source: Source) -> Source:
    """A table of two columns without a header: the one with fewer different values is the label."""
    if source.format not in ("csv", "tsv") or source.text_field or len(names := fields(source)) != 2:
        return source
    if any(name.lower() in LABEL_FIELDS for name in names):
        return source
    plain = replace(source, columns=("0", "1"))
    rows = [row for (_, row), _ in zip(read_records(whole(plain), lambda _: None), range(1000), strict=False)]
    different = [len({row[column] for row in rows}) for column in ("0", "1")]
    columns = ("label", "text") if different[0] <= different[1] else ("text", "label")
    return replace(source, columns=columns, text_field="text")


# ---------------------------------------------------------------- duplicates


def leaks(ours: Examination, theirs: Examination) -> tuple[Findings, Findings]:
    """Documents of ours that are in theirs, too: exactly, and nearly."""
    exact, near = Findings(), Findings()
    partners, scores = NearIndex(theirs.signatures).nearest(np.concatenate([signatures([]), *ours.signatures]))
    for (place, digest), partner, score in zip(ours.digests, partners, scores, strict=True):
        if digest in theirs.seen:
            exact.add(f"{place} = {theirs.seen[digest]}")
        elif score >= NEAR:
            near.add(f"{place} ≈ {theirs.digests[partner][0]} ({score:.0%})")
    return exact, near


# ---------------------------------------------------------------- the verb


def doctor(options: Doctor, fault: Fault = lambda record: "") -> tuple[dict[str, Any], str]:
    """`pellucid doctor`: the files, or without any the machine and the install.

    `fault` says in words what keeps a record with an answer from being one to finetune on, if anything does.
    """
    if not options.files:
        names = ("against", "tokenizer", "context_length")
        if given := [f"--{name.replace('_', '-')}" for name in names if getattr(options, name)]:
            advice = "Give one, or leave it out: without a file the machine is described."
            raise ConfigError(problem(", ".join(given), "no file", "one to examine", advice))
        return describe_machine()
    if options.context_length and not options.tokenizer:
        advice = "Give --tokenizer, a folder or gpt2."
        raise ConfigError(problem("--context-length", "no tokenizer", "one to count tokens with", advice))
    tokenizer = Tokenizer.load(options.tokenizer) if options.tokenizer else None
    against = Examination(options.against, compared=True) if options.against else None
    found = [
        Examination(path, tokenizer, compared=against is not None, fault=fault).report(options.context_length, against)
        for path in options.files
    ]
    return {"files": found}, "\n\n".join(as_text(each, options.context_length) for each in found)
