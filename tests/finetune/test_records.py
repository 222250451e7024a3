"""Four kinds of files are found by looking; what is wrong in one is named by file, line and record."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pellucid.finetune.conversation import Message, ensure_role_tokens
from pellucid.finetune.instructions import Example, read_instructions, split_examples
from pellucid.finetune.shown import show_examples
from pellucid.runtime import DataError
from pellucid.text.tokenizer import Tokenizer
from tests.conftest import Cli

TURNS = (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello."))
WHOLE = Example("Where?", "", "Here.", earlier=TURNS)
ROLES = [(message.role, message.content) for message in (*TURNS, Message("user", "Where?"))]
HUMAN = {"system": "system", "user": "human", "assistant": "gpt"}


def messages(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


KINDS: dict[str, dict[str, Any]] = {
    "messages": {"messages": messages(*ROLES, ("assistant", "Here."))},
    "parts": {"messages": [*messages(*ROLES), {"role": "assistant", "content": [{"type": "text", "text": "Here."}]}]},
    "ShareGPT": {"conversations": [{"from": HUMAN[r], "value": c} for r, c in [*ROLES, ("assistant", "Here.")]]},
    "prompt and completion": {"prompt": messages(*ROLES), "completion": messages(("assistant", "Here."))},
    "prompt and a text": {"prompt": messages(*ROLES), "completion": "Here."},
    "a system prompt beside": {"system": "Be brief.", "messages": messages(*ROLES[1:], ("assistant", "Here."))},
    "two system prompts": {"system": "No.", "messages": messages(*ROLES, ("assistant", "Here."))},
    "system and prompt": {"system": "Be brief.", "prompt": messages(*ROLES[1:]), "completion": "Here."},
    "history": {"instruction": "Where?", "output": "Here.", "system": "Be brief.", "history": [["Hi", "Hello."]]},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("as_lines", [False, True])
def test_a_conversation_of_many_turns_is_found_in_each_kind(tmp_path: Path, kind: str, as_lines: bool) -> None:
    file = tmp_path / "talk.json"  # whatever its name says
    alpaca = {"instruction": "Add.", "input": "1 2", "output": "3", "split": "train"}
    records = [KINDS[kind], alpaca]
    file.write_text("\n".join(map(json.dumps, records)) if as_lines else json.dumps(records, indent=1))
    assert read_instructions(file) == [WHOLE, Example("Add.", "1 2", "3", split="train")]
    for asked in ("prompt", "instruction", "question"):
        for answer in ("completion", "output", "response", "answer"):
            file.write_text(json.dumps([{asked: "Where?", answer: "Here."}]))
            assert read_instructions(file) == [Example("Where?", "", "Here.")]


@pytest.mark.parametrize(("name", "between"), [("talk.csv", ","), ("talk.csv", ";"), ("talk.tsv", "\t")])
def test_a_table_is_read_by_the_names_of_its_columns(tmp_path: Path, name: str, between: str) -> None:
    file = tmp_path / name
    file.write_text(
        "\n".join(map(between.join, [["input", "question", "answer"], ["1 2", "Add.", "3"], ["", "Hi", "Ho"]]))
    )
    assert read_instructions(file) == [Example("Add.", "1 2", "3"), Example("Hi", "", "Ho")]
    file.write_text("\n".join(map(between.join, [["question", "answer"], ["Hi", "Ho"], ["Hi", ""]])))
    with pytest.raises(DataError, match=r"line 3, record 2: found no output \(the record has question, answer\)"):
        read_instructions(file)
    file.write_text("")
    with pytest.raises(DataError, match="no record"):
        read_instructions(file)


def test_all_answers_of_a_conversation_are_trained(base_folder: Path) -> None:
    tokenizer = Tokenizer.load(base_folder)
    ensure_role_tokens(tokenizer)
    ids, trained = WHOLE.whole().encode(tokenizer)
    learnt = [token for token, mask in zip(ids, trained, strict=True) if mask]
    assert tokenizer.decode(learnt) == "Hello.<|endoftext|>Here.<|endoftext|>"
    assert tokenizer.decode(WHOLE.question().prompt(tokenizer)).endswith("<|user|>Where?<|assistant|>")


def test_the_same_last_question_after_another_talk_is_another_question() -> None:
    examples = [
        Example("And?", "", f"{i}.", earlier=(Message("user", f"{i}"), Message("assistant", "k"))) for i in "abcdef"
    ]
    assert sum(map(len, split_examples(examples).values())) == 6


def wrong(*turns: tuple[str, Any]) -> str:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]})


BAD = {
    "starts with an answer": (wrong(("assistant", "a"), ("user", "b")), "turn 1 is the assistant's"),
    "two questions": (wrong(("user", "a"), ("user", "b"), ("assistant", "c")), "turn 2 is the user's"),
    "a late system turn": (wrong(("user", "a"), ("system", "b"), ("assistant", "c")), "turn 2 is the system's"),
    "no answer": (wrong(("user", "a")), "no answer at the end"),
    "a question at the end": (wrong(("user", "a"), ("assistant", "b"), ("user", "c")), "no answer at the end"),
    "only a system turn": (wrong(("system", "a")), "no answer at the end"),
    "an empty answer": (wrong(("user", "a"), ("assistant", " ")), "an empty turn 2 of the assistant"),
    "an answer of null": (wrong(("user", "a"), ("assistant", None)), "an empty turn 2"),
    "a tool": (wrong(("user", "a"), ("tool", "b")), "the role tool in turn 2"),
    "a picture": (wrong(("user", [{"type": "image_url"}]), ("assistant", "b")), "a part of turn 1 that is no text"),
    "half a character": (wrong(("user", "a\ud800"), ("assistant", "b")), "half a character in the content of turn 1"),
    "a number": (wrong(("user", 5), ("assistant", "b")), "the content of turn 1 5"),
    "no list": ('{"conversations": "hi"}', "conversations hi"),
    "turns of texts": ('{"messages": ["hi"]}', "a turn 1 that is no object"),
    "an answer that is not to be learnt": (
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}',
        "the weight 0 of turn 2",
    ),
    "half a history": ('{"instruction": "a", "output": "b", "history": [["c"]]}', "history ['c'] as part 1"),
    "a history of text": ('{"instruction": "a", "output": "b", "history": "c"}', "history c as part 1"),
    "a history without an answer": ('{"instruction": "a", "output": "b", "history": [["c", ""]]}', "an empty turn 2"),
    "a system of numbers": ('{"instruction": "a", "output": "b", "system": 5}', "system 5"),
    "no completion": ('{"prompt": "a"}', "no completion (the record has prompt)"),
    "other keys": ('{"query": "a", "reply": "b"}', "no instruction (the record has query, reply)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("as_lines", [False, True])
def test_a_bad_record_is_named_by_file_line_and_number(tmp_path: Path, kind: str, as_lines: bool) -> None:
    content, said = BAD[kind]
    good = '{"instruction": "a",\n "input": "[1, {2", "output": "b, ]"}'
    file = tmp_path / "talk.json"
    file.write_text(f"{good.replace(chr(10), '')}\n\n{content}\n" if as_lines else f"[\n{good}\n,\n\n{content}]")
    with pytest.raises(DataError) as error:
        read_instructions(file)
    assert f"{file}, line {3 if as_lines else 6}, record 2: found " in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize("kind", BAD)
def test_doctor_does_not_call_well_what_finetuning_refuses(call: Cli, tmp_path: Path, kind: str) -> None:
    content, said = BAD[kind]
    good, file = '{"instruction": "a", "output": "b"}', tmp_path / "talk.jsonl"
    file.write_text(f"{good}\n{content}\n")
    found = json.loads(call("doctor", file, "--json").stdout)["files"][0]
    bad, unanswered = found["bad"]["first"], found["instructions"]["without_answer"]["count"]
    assert found["mend"] and len(bad) + unanswered == 1
    if bad and kind not in ("half a character", "no completion", "other keys"):  # which it says in words of its own
        assert f"{file}, line 2: found " in bad[0] and said in bad[0]
    file.write_text(f"{good}\n{json.dumps(KINDS['messages'])}\n")
    assert json.loads(call("doctor", file, "--json").stdout)["files"][0]["mend"] == []


@pytest.mark.parametrize(("content", "said"), [("[" * 100_000, "without end"), ("[" + "9" * 5000 + "]", "line 1")])
def test_a_hostile_file_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=said):
        read_instructions(tmp_path / "a.json")


def printed(tokenizer: Tokenizer, most: int = 3, **settings: Any) -> str:
    console = Console(file=io.StringIO(), width=200, highlight=False, **settings)
    rows = [Example("Where?", "\x1b[2J", f"[bold]{word}").whole().encode(tokenizer) for word in "abcde"]
    show_examples(rows, tokenizer, console, most)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_three_examples_are_shown_with_the_trained_tokens_in_colour(base_folder: Path) -> None:
    tokenizer = Tokenizer.load(base_folder)
    ensure_role_tokens(tokenizer)
    out = printed(tokenizer, force_terminal=True, color_system="256")
    coloured = [part.split("\x1b[0m")[0] for part in out.split("\x1b[30;48;5;153m")[1:]]
    assert coloured == [f"[bold]{word}<|endoftext|>" for word in "abc"]
    assert "\x1b[2J" not in out and "\\x1b[2J<|assistant|>" in out
    assert "[[bold]a<|endoftext|>]" in printed(tokenizer, force_terminal=True, color_system=None)
    assert printed(tokenizer) == "", "nothing on a pipe"
    assert printed(tokenizer, most=4, force_terminal=True, color_system=None).count("Where?") == 4
