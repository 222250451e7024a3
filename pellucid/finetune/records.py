"""Conversations out of the files that people have, found by looking at each record: json, jsonl, csv or tsv.

    Alpaca                  {"instruction": …, "input": …, "output": …}; also question, context, response, answer;
                            perhaps "history": [[question, answer], …]
    ShareGPT                {"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}]}
    messages                {"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}]}
    prompt and completion   {"prompt": …, "completion": …}, each a text or a list of messages
    HH-RLHF                 a talk in one text, Human: …, an empty line, Assistant: …, for any of these texts
    "system": … beside any of these is its first turn

What cannot be read is a DataError that names the file, the line and the record.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import regex

from pellucid.finetune.conversation import Message
from pellucid.runtime import DataError, problem, shown
from pellucid.text import readers as table
from pellucid.text.content import whole
from pellucid.text.documents import read_text
from pellucid.text.sources import look

Role = Literal["system", "user", "assistant"]
ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
}  # fmt: skip
SPEAKERS = regex.compile(r"(?:^|\n\n)(Human|Assistant):")
TABLES = (".csv", ".tsv")
TURNS = ("messages", "conversations", "conversation")
QUESTIONS = ("instruction", "question")
ANSWERS = ("output", "response", "answer", "completion")
KNOWN = (
    "instruction and output (Alpaca), question and answer, conversations (ShareGPT), messages, "
    "or prompt and completion; "
    "for preferences a prompt, chosen and rejected"
)


@dataclass(frozen=True)
class Record:
    """One object of a file; `str` of its place is looked up only when an error needs it."""

    value: dict[str, Any]
    path: Path
    number: int
    line: int = 0  # 0: to be found in `text`, the whole file
    text: str = ""

    @property
    def place(self) -> str:
        """File, line and number of the record."""
        return f"{self.path}, line {self.line or line_of(self.text, self.number)}, record {self.number}"

    def bad(self, found: str, expected: str, advice: str = "Mend the record, or remove it.") -> DataError:
        """The error that something in this record is."""
        return DataError(problem(self.place, found, expected, advice))

    def text_of(self, key: str) -> str:
        """The text under `key`; "" where there is none, or null."""
        return self.checked(key, self.value.get(key))

    def first_text(self, keys: Sequence[str]) -> str:
        """The first text under one of these keys that is more than white space; "" where there is none."""
        return next((text for key in keys if (text := self.text_of(key)).strip()), "")

    def checked(self, name: str, value: Any) -> str:
        """`value` as the text that it should be."""
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.bad(f"{name} {shown(value)}", "a text", "Put it in quotation marks.")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise self.bad(f"half a character in {name}", "Unicode text") from error
        return value


# ---------------------------------------------------------------- files


def read_records(path: Path) -> list[Record]:
    """The records of a file: a table, or whatever else it is called a JSON list, or an object on each line."""
    return list(open_records(path))


def open_records(path: Path) -> Sequence[Record]:
    """The same, but where each stands on a line of its own it is parsed when it is asked for."""
    path = Path(path)
    found = _rows(path) if path.suffix.lower() in TABLES else _json(path)
    if not found:
        raise DataError(problem(path, "no record", "instructions with answers", "Check the file."))
    return found


def _rows(path: Path) -> Sequence[Record]:
    """The rows of a csv or tsv file, whose first line names the columns."""
    rows = enumerate(table.read_records(whole(look(path))), start=1)
    return [Record(row, path, number, int(place.removeprefix("line "))) for number, (place, row) in rows]


def _json(path: Path) -> Sequence[Record]:
    text = read_text(path)
    start = text.lstrip()[:1]
    if start == "[" or (path.suffix == ".json" and not _is_lines(text)):
        content = _parsed(f"{path}", text, 1)
        if not isinstance(content, list):
            raise DataError(problem(path, "no list", "a JSON list of records", "Put the records between [ and ]."))
        return [_object(Record(value, path, number, text=text)) for number, value in enumerate(content, start=1)]
    return _Lines(path, text)


class _Lines(Sequence[Record]):
    """The records of a file with one on each line that is not empty."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = [(line, part) for line, part in enumerate(text.split("\n"), start=1) if part.strip()]

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, place: Any) -> Any:
        line, part = self._lines[place]
        return _object(Record(_parsed(f"{self._path}", part, line), self._path, place + 1, line))


def _object(record: Record) -> Record:
    if not isinstance(record.value, dict):
        raise record.bad("no JSON object", KNOWN)
    return record


def _is_lines(text: str) -> bool:
    """Whether a first line is an object by itself and another follows."""
    first, _, rest = text.strip().partition("\n")
    try:
        return isinstance(json.loads(first), dict) and bool(rest)
    except (ValueError, RecursionError):
        return False


def _parsed(where: str, text: str, line: int) -> Any:
    """`text` as JSON; it begins at `line` of the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{where}, line {line + error.lineno - 1}"
        raise DataError(problem(place, f"broken JSON ({error.msg})", "valid JSON", "Mend it there.")) from error
    except RecursionError as error:
        place = f"{where}, line {line}"
        raise DataError(problem(place, "JSON nested without end", "a record", "Mend it there.")) from error
    except ValueError as error:  # a number of thousands of digits
        raise DataError(problem(f"{where}, line {line}", str(error), "valid JSON", "Mend it there.")) from error


def line_of(text: str, number: int) -> int:
    """The line on which the `number`-th value of a JSON list begins."""
    decoder, space = json.JSONDecoder(), regex.compile(r"\s*")

    def skip(at: int) -> int:
        found = space.match(text, at)
        return found.end() if found else at

    at = text.index("[") + 1
    for _ in range(number - 1):
        _, at = decoder.raw_decode(text, skip(at))
        at = skip(at) + 1  # behind the comma
    return text.count("\n", 0, skip(at)) + 1


# ---------------------------------------------------------------- turns


def turns_of(record: Record) -> list[Message]:
    """The conversation of a record of any of the four kinds, its roles in order and its last turn an answer."""
    value = record.value
    for key in TURNS:
        if key in value:
            return checked_turns(record, under_system(record, listed_turns(record, key)))
    if "prompt" in value:
        answer = next((key for key in reversed(ANSWERS) if key in value), "completion")
        turns = under_system(record, turns_at(record, "prompt", "user"))
        return checked_turns(record, [*turns, *turns_at(record, answer, "assistant")])
    question, answer = alpaca_question(record), record.first_text(ANSWERS)
    if not answer:
        known = ", ".join(map(shown, value)) or "nothing"
        raise record.bad(f"no output (the record has {known})", "an answer", "Fill it in or remove the record.")
    return checked_turns(record, [*alpaca_talk(record), Message("user", question), Message("assistant", answer)])


def under_system(record: Record, turns: list[Message]) -> list[Message]:
    """The turns below the system prompt that a record has beside them, if it has one and they have none."""
    system = record.text_of("system")
    if not system.strip() or (turns and turns[0].role == "system"):
        return turns
    return [Message("system", system), *turns]


def alpaca_talk(record: Record) -> list[Message]:
    """What was said before an instruction: a system prompt, and the pairs of a history (LLaMA-Factory's layout)."""
    turns: list[Message] = []
    history = record.value.get("history") or []
    for number, pair in enumerate(history if isinstance(history, list) else [history], start=1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise record.bad(f"history {shown(pair)} as part {number}", "a question and its answer, as a list of two")
        question, answer = (record.checked(f"history {number}", text) for text in pair)
        turns += [Message("user", question), Message("assistant", answer)]
    return under_system(record, turns)


def alpaca_question(record: Record) -> str:
    """The instruction of a record (its input is for the caller)."""
    instruction = record.first_text(QUESTIONS)
    if not instruction:
        known = ", ".join(map(shown, record.value)) or "nothing"
        raise record.bad(f"no instruction (the record has {known})", KNOWN, "Rename its keys, or fill it in.")
    return instruction


def turns_at(record: Record, key: str, role: Role) -> list[Message]:
    """What stands under `key`: a list of messages, a talk in one text, or a text that `role` says."""
    if isinstance(record.value.get(key), list):
        return listed_turns(record, key)
    text = record.text_of(key)
    if is_transcript(text):
        _, *parts = SPEAKERS.split(text.strip())
        turns = [Message(ROLES[who.lower()], said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True)]
        return turns[:-1] if not turns[-1].content else turns  # a prompt may end with who is to speak
    if not text.strip():
        known = ", ".join(map(shown, record.value)) or "nothing"
        raise record.bad(f"no {key} (the record has {known})", KNOWN, "Fill it in or remove the record.")
    return [Message(role, text)]


def is_transcript(value: Any) -> bool:
    """Whether a value is a whole talk in one text: Human: …, and below it Assistant: … (Anthropic's HH-RLHF)."""
    return isinstance(value, str) and value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def listed_turns(record: Record, key: str) -> list[Message]:
    """A list of turns as ShareGPT (from, value) or OpenAI (role, content) writes them; an empty system turn is none."""
    listed = record.value[key]
    if not isinstance(listed, list) or not listed:
        raise record.bad(f"{key} {shown(listed)}", "a list of turns")
    turns = []
    for number, turn in enumerate(listed, start=1):
        if not isinstance(turn, dict):
            raise record.bad(f"a turn {number} that is no object", "an object with role and content")
        said, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        role = ROLES.get(said.lower()) if isinstance(said, str) else None
        if role is None:
            raise record.bad(f"the role {shown(said)} in turn {number}", "system, user or assistant (human, gpt)")
        if role == "assistant" and turn.get("weight", 1) not in (1, None):
            found = f"the weight {shown(turn['weight'])} of turn {number}"
            raise record.bad(found, "1, for every answer is learnt", "Remove what is not to be learnt.")
        if isinstance(content, list):  # parts, as for models that see pictures
            content = "".join(record.checked("text", _text_part(record, part, number)) for part in content)
        text = record.checked(f"the content of turn {number}", content)
        if text.strip() or role != "system":
            turns.append(Message(role, text))
    return turns


def _text_part(record: Record, part: Any, number: int) -> Any:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise record.bad(f"a part of turn {number} that is no text", "texts alone")
    return part.get("text") or ""


def checked_turns(record: Record, turns: Sequence[Message]) -> list[Message]:
    """The turns, if they are a talk to learn from: perhaps a system turn, then user and assistant by turns."""
    first = int(bool(turns) and turns[0].role == "system")
    for number, turn in enumerate(turns[first:], start=first + 1):
        expected = "assistant" if (number - first) % 2 == 0 else "user"
        if turn.role != expected:
            found = f"roles out of order: turn {number} is the {turn.role}'s"
            raise record.bad(found, f"one of the {expected} there (a system turn only comes first)")
        if not turn.content.strip():
            raise record.bad(f"an empty turn {number} of the {turn.role}", "a text", "Fill it in or remove the record.")
    if len(turns) - first < 2 or turns[-1].role != "assistant":
        raise record.bad("no answer at the end", "a last turn of the assistant", "Add it, or remove the record.")
    return list(turns)


def fault(value: dict[str, Any]) -> str:
    """What keeps a record from being one to finetune on, without its place; empty where nothing does."""
    # only now, as the second loads torch, for which nobody waits who has other files examined
    from pellucid.finetune.instructions import to_example
    from pellucid.finetune.prefer import to_pair

    record = Record(value, Path(), 1, 1)
    try:
        (to_pair if "chosen" in value or "rejected" in value else to_example)(record)
    except DataError as error:
        return str(error).removeprefix(f"{record.place}: ")
    return ""
