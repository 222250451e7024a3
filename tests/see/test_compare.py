"""Two models side by side: measures that mean something, a judge over real HTTP, a page on which everything is text."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.finetune.answers import (
    Answer,
    answer_all,
    asked,
    assistant_scores,
    reference_perplexity,
    repetition,
    same_text,
    word_f1,
)
from pellucid.finetune.compare import Contender, by_checks, chosen, compare_answers, contender, tally
from pellucid.finetune.instruct import prepare_model, save_assistant
from pellucid.finetune.instructions import Example
from pellucid.finetune.judge import FIRST, Judge, Question, prompt_of, read_verdict, seconds_to_wait
from pellucid.model.gpt import GPT
from pellucid.runtime import ConfigError, DataError, PellucidError
from pellucid.see.compare import page
from pellucid.text.tokenizer import Tokenizer

ATTACK = "<script>alert(1)</script><b onclick='x'>\x1b[2J</b> {question} {{ 7*7 }} $&"


# ---------------------------------------------------------------- measures


@pytest.mark.parametrize(
    ("expected", "said", "f1"),
    [
        ("The cat sat.", "the cat SAT", 1.0),
        ("the cat", "the dog", 0.5),
        ("a b c d", "a", 0.4),
        ("a a", "a", 2 / 3),
        ("a", "b", 0.0),
        ("a", "", 0.0),
        ("...", "!", 1.0),
    ],
)
def test_f1_counts_the_words_in_common(expected: str, said: str, f1: float) -> None:
    assert word_f1(expected, said) == pytest.approx(f1)
    assert word_f1(said, expected) == pytest.approx(f1)


@given(st.text(max_size=60), st.text(max_size=60))
def test_f1_is_a_share_and_one_only_for_the_same_words(one: str, other: str) -> None:
    assert 0 <= word_f1(one, other) <= 1
    assert word_f1(one, one) == 1


def test_repetition_is_the_share_of_runs_of_four_words_said_before() -> None:
    assert repetition("a b c") == repetition("one two three four five six") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 - 4 / 5)
    assert repetition("la " * 100) == pytest.approx(1 - 1 / 97)


def answer(said: str, expected: str = "Yes.", ended: bool = True) -> Answer:
    example = Example("Well?", "", expected)
    return Answer(example, said, same_text(example, said), ended, len(said))


def test_scores_hold_means_and_intervals() -> None:
    scores = assistant_scores([answer("Yes."), answer("no"), answer("yes!", ended=False), answer("la la la la la")])
    assert (scores["exact_match"], scores["f1"], scores["stop_rate"]) == (0.25, 0.5, 0.75)
    assert scores["tokens"] == (4 + 2 + 4 + 14) / 4
    assert scores["repetition"] == 0.125
    for name, (low, high) in scores["intervals"].items():
        assert low <= scores[name] <= high
    assert assistant_scores([])["intervals"]["f1"] == assistant_scores([answer("no")])["intervals"]["f1"] == []


@pytest.fixture(scope="module")
def assistant(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assistant") / "tuned"
    model, tokenizer = GPT.load(base_folder), Tokenizer.load(base_folder)
    prepare_model(model, tokenizer)
    save_assistant(model, tokenizer, folder)
    return folder


@pytest.mark.parametrize("taught", [True, False])
def test_the_perplexity_of_the_right_answer_is_that_of_its_tokens_one_by_one(
    base_folder: Path, assistant: Path, taught: bool
) -> None:
    folder = assistant if taught else base_folder
    model, tokenizer = GPT.load(folder), Tokenizer.load(folder)
    examples = [Example("Where?", "the fox", "With Anna."), Example("Who?", "", "Ben")]
    nats = []
    for example in examples:
        ids = asked(example, tokenizer)
        for token in [*tokenizer.encode(example.output), tokenizer.end_of_text]:
            with torch.no_grad():
                nats.append(-float(model(torch.tensor([ids]))[0, -1].log_softmax(dim=0)[token]))
            ids.append(token)
    expected = torch.tensor(nats).mean().exp()
    assert reference_perplexity(model, tokenizer, examples) == pytest.approx(float(expected), rel=1e-4)
    assert reference_perplexity(model, tokenizer, []) is None


def test_a_model_that_was_not_taught_to_talk_is_asked_in_plain_text(base_folder: Path) -> None:
    tokenizer = Tokenizer.load(base_folder)
    assert tokenizer.decode(asked(Example("Where?", "the fox", "x"), tokenizer)) == "<|endoftext|>Where?\nthe fox\n"
    (said,) = answer_all(GPT.load(base_folder), tokenizer, [Example("Where?", "", "x")], same_text, max_tokens=5)
    assert said.tokens <= 5


# ---------------------------------------------------------------- pairs


def test_that_right_answers_are_longer_than_what_is_allowed_is_said(
    assistant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = [Example("Where?", "", "fox " * 20), Example("Who?", "", "Ben.")]
    contender(assistant, examples, max_tokens=8)
    assert "of 2 right answers 1 are longer than 8 tokens" in capsys.readouterr().err
    contender(assistant, examples[1:], max_tokens=8)
    assert capsys.readouterr().err == ""


def test_pairs_are_compared_by_exact_match_then_by_words() -> None:
    assert by_checks(answer("Yes."), answer("yes")) == "a", "both have all words, one is exact"
    assert by_checks(answer("no"), answer("oh yes")) == "b"
    assert by_checks(answer("no"), answer("never")) == "tie"


def test_a_tally_counts_every_reply_and_draws_its_interval_over_questions() -> None:
    found = tally([["a", "a"], ["b", "unclear"], ["tie", "a"], ["a", "b"]])
    assert [found[name] for name in ("a", "b", "tie", "unclear")] == [4, 2, 1, 1]
    assert (found["replies"], found["questions"]) == (8, 4)
    assert found["a_share"] == pytest.approx((1 + 0.25 + 0.75 + 0.5) / 4)
    low, high = found["interval"]
    assert low < found["a_share"] < high


def test_questions_are_drawn_at_random_and_always_the_same() -> None:
    examples = [Example(f"{i}", "", "x") for i in range(30)]
    drawn = chosen(examples, 10, seed=1)
    assert drawn == chosen(examples, 10, seed=1) != chosen(examples, 10, seed=2)
    assert len(drawn) == 10 and set(drawn) <= set(examples)
    assert chosen(examples, 99, seed=1) == examples
    with pytest.raises(DataError, match="--questions"):
        chosen(examples, 0, seed=1)


# ---------------------------------------------------------------- the judge


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It is right.\nVerdict: 1", "a"),
        ("Verdict: 2", "b"),
        ("**Verdict:** 2.", "b"),
        ("verdict - Answer 1", "a"),
        ("Verdict: 2\nOn reflection:\nVerdict: 1", "a"),
        ("Verdict: tie", "tie"),
        ("2", "b"),
        ("Verdict: 1, Verdict: 2 or Verdict: tie", "unclear"),
        ("Verdict: 12", "unclear"),
        ("Answer 1 is better than answer 2 I think", "unclear"),
        ("", "unclear"),
    ],
)
def test_a_verdict_is_read_from_the_last_line_that_has_one(text: str, said: str) -> None:
    assert read_verdict(text, a_first=True) == said
    assert read_verdict(text, a_first=False) == {"a": "b", "b": "a"}.get(said, said)


def test_what_a_judge_is_asked_holds_no_verdict_that_it_could_copy() -> None:
    for a_first in (True, False):
        asked = prompt_of(Question("How?", "So.", "So.", "No."), a_first)
        assert read_verdict(asked, a_first) == "unclear"
        assert not re.search(r"verdict\W+(\d|tie)", asked, re.IGNORECASE)


class Server(ThreadingHTTPServer):
    """A judge on loopback that likes the longer answer; `broken` is what it sends instead, (status, body)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.broken: list[tuple[int, bytes]] = []
        self.mumbles_every = 0
        self.refuses: str | None = None  # prompts with these words

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.add(self.headers.get("Authorization", ""))
        if self.server.broken:
            return self.send(*self.server.broken.pop(0))
        self.server.seen.append(body)
        said = body["messages"][0]["content"]
        if self.server.refuses and self.server.refuses in said:
            return self.send(400, b"content filter")
        one, two = re.findall(r"Answer [12]:\n(.*?)\n\n(?=Answer 2|Which answer)", said, re.S)
        verdict = "tie" if len(one) == len(two) else 1 if len(one) > len(two) else 2
        mumbles = self.server.mumbles_every and len(self.server.seen) % self.server.mumbles_every == 0
        text = "I cannot say." if mumbles else f"It is longer. {ATTACK}\nVerdict: {verdict}"
        path = 200 if self.path == "/v1/chat/completions" else 404
        self.send(path, json.dumps({"choices": [{"message": {"content": text}}]}).encode())

    def send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        if status == 429:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


QUESTIONS = [Question("How?", "So.", "a long answer", "short"), Question("Who?", "Me.", "x", "y")]


def test_a_judge_sees_each_pair_in_both_orders_and_as_often_as_asked(server: Server) -> None:
    judge = Judge(server.url, "judge", key="secret", repeats=3)
    replies = judge.compare(QUESTIONS)
    assert [[reply.verdict for reply in group] for group in replies] == [["a"] * 6, ["tie"] * 6]
    assert [reply.a_first for reply in replies[0]] == [True, False] * 3
    assert server.keys == {"Bearer secret"}
    prompts = [body["messages"][0]["content"] for body in server.seen]
    assert len(prompts) == 12 and len(set(prompts)) == 4
    assert {body["seed"] for body in server.seen} == {0, 1, 2} and server.seen[0]["temperature"] > 0
    assert prompt_of(QUESTIONS[0], True).index("a long answer") < prompt_of(QUESTIONS[0], True).index("short")


def test_replies_that_cannot_be_read_are_counted_and_none_is_dropped(server: Server) -> None:
    server.mumbles_every = 3
    a = Contender("a", [answer("a long answer")] * 6, assistant_scores([]), True)
    b = Contender("b", [answer("short")] * 6, assistant_scores([]), True)
    found = compare_answers(a, b, replace(Judge(server.url, "judge"), at_once=1))["judge"]
    assert (found["a"], found["unclear"], found["replies"]) == (8, 4, 12)
    assert found["a_share"] == pytest.approx((8 + 4 / 2) / 12)
    assert found["first_share"] is not None


def test_a_request_that_fails_is_counted_and_loses_nothing_but_itself(server: Server) -> None:
    server.refuses = "No good"
    a = Contender("a", [answer("a long answer")] * 3, assistant_scores([]), True)
    b = Contender("b", [answer("short"), answer("short"), answer("No good")], assistant_scores([]), True)
    found = compare_answers(a, b, Judge(server.url, "judge"))
    assert (found["judge"]["a"], found["judge"]["failed"], found["judge"]["replies"]) == (4, 2, 6)
    assert found["judge"]["a_share"] == pytest.approx((2 + 0.5) / 3)
    assert "HTTP status 400 (content filter)" in found["questions"][2]["judge"][0]["text"]
    server.refuses = "Question"
    asked = len(server.seen)
    with pytest.raises(PellucidError, match="content filter"):
        Judge(server.url, "judge", at_once=1).compare(QUESTIONS * 20)
    assert FIRST <= len(server.seen) - asked < 40, "not all 80"
    server.refuses, server.broken, asked = "", [(401, b"no key")], len(server.seen)
    with pytest.raises(PellucidError, match="no key"):
        Judge(server.url, "judge", at_once=1).compare(QUESTIONS * 20)
    assert len(server.seen) - asked <= 2, "a wrong key is wrong for all"


def test_a_server_says_how_long_to_wait(server: Server) -> None:
    server.broken = [(429, b"slow down")]
    began = time.monotonic()
    assert Judge(server.url, "judge", at_once=1, max_tokens=7).compare(QUESTIONS[:1])[0][0].verdict == "a"
    assert time.monotonic() - began >= 1
    assert server.seen[0]["max_tokens"] == 7
    assert [seconds_to_wait(asked) for asked in (None, "3", "900", "Wed, 21 Oct")] == [0, 3, 60, 0]


def test_a_busy_judge_is_asked_again_and_a_wrong_one_named(server: Server) -> None:
    judge = Judge(server.url, "judge", at_once=1)
    server.broken = [(503, b"busy"), (429, b"slow down")]
    assert judge.compare(QUESTIONS[:1])[0][0].verdict == "a"
    for status, body, said in [
        (401, b"no \x1b[2J key", r"401 (no \x1b[2J key)"),
        (302, b"", "HTTP status 302"),
        (200, b"<html>", "no chat completion (<html>)"),
        (200, b'{"choices": []}', "no chat completion"),
        (200, b"x" * (1 << 20) + b"xx", "more than 1,048,576 bytes"),
    ]:
        server.broken = [(status, body)] * 3
        with pytest.raises(PellucidError) as error:
            judge.compare(QUESTIONS[:1])
        assert said in str(error.value) and server.url in str(error.value)
        assert "\x1b" not in str(error.value)
    server.broken = []


@pytest.mark.parametrize(
    ("given", "said"),
    [({"url": "127.0.0.1:11434"}, "http://"), ({"url": "file:///etc/passwd"}, "http://"),
     ({"model": ""}, "--judge-model"), ({"repeats": 0}, "--repeats")],
)  # fmt: skip
def test_an_impossible_judge_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Judge(**{"url": "http://127.0.0.1:1/v1", "model": "m", **given})


def test_a_judge_that_is_not_there_is_named() -> None:
    with pytest.raises(PellucidError, match="no answer"):
        Judge("http://127.0.0.1:1/v1", "judge", timeout=1).compare(QUESTIONS[:1])


# ---------------------------------------------------------------- the verb and its page


def test_a_base_model_stands_beside_the_tuned_one(
    call: Any, base_folder: Path, assistant: Path, server: Server, tmp_path: Path
) -> None:
    data, html, key = tmp_path / "talk.json", tmp_path / "page.html", tmp_path / "key"
    data.write_text(json.dumps([{"instruction": f"{ATTACK} {i}", "output": f"{ATTACK} {i}"} for i in range(40)]))
    key.write_text("secret\n")
    given = ("compare", base_folder, assistant, "--data", data, "--max-tokens", 4, "--questions", 3, "--html", html)
    judge = ("--judge", server.url, "--judge-model", "longest", "--judge-key-file", key, "--repeats", 2)
    done = call(*given, *judge, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [found["a"]["taught"], found["b"]["taught"]] == [False, True]
    assert found["checks"]["questions"] == 3 and found["judge"]["replies"] == 12
    assert sum(found["checks"][name] for name in ("a", "b", "tie", "unclear")) == 3
    text = html.read_text(encoding="utf-8")
    assert "<script" not in text and "<b onclick" not in text and "\x1b" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3 * 2 + 12, "questions, answers and the judge's words"
    assert "{{ 7*7 }}" in text and "default-src &#39;none&#39;" not in text
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|@import|url\(|<link|\ssrc=", text)
    plain = call(*given)
    assert plain.returncode == 0, plain.stderr
    assert "better by these checks: " in plain.stdout and "longest" not in plain.stdout
    assert f"perhaps known to {assistant}" in plain.stdout and "no run.json" in plain.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--max-tokens", 64], "fewer than its context"), (["--max-tokens", 0], "--max-tokens"),
     (["--judge", "nowhere"], "--judge"), (["--questions", 0], "--questions")],
)  # fmt: skip
def test_an_impossible_comparison_is_refused(
    call: Any, assistant: Path, tmp_path: Path, more: list[Any], said: str
) -> None:
    data = tmp_path / "talk.json"
    data.write_text(json.dumps([{"instruction": f"{i}", "output": f"{i}"} for i in range(40)]))
    done = call("compare", assistant, assistant, "--data", data, *more)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_single_question_has_no_interval(call: Any, assistant: Path, tmp_path: Path) -> None:
    data, html = tmp_path / "talk.json", tmp_path / "page.html"
    data.write_text(json.dumps([{"instruction": f"{i}", "output": f"{i}"} for i in range(40)]))
    given = ("compare", assistant, assistant, "--data", data, "--max-tokens", 4, "--questions", 1)
    done = call(*given, "--html", html)
    assert done.returncode == 0, done.stderr
    assert "too few for intervals" in done.stdout
    assert "has 50.0% of the points\n" in done.stdout and not re.search(r"\(.* to .*\)", done.stdout)
    assert "One question: too few" in (text := html.read_text()) and not re.search(r"\d to \d", text)


def test_where_the_two_differ_comes_first_on_the_page() -> None:
    a = Contender("a", [answer("no"), answer("Yes.")], assistant_scores([answer("no"), answer("Yes.")]), True)
    b = Contender("b", [answer("no"), answer("maybe")], assistant_scores([answer("no"), answer("maybe")]), True)
    for side in (a, b):
        side.scores["reference_perplexity"] = None
    text = page({**compare_answers(a, b), "data": "talk.json", "unsure": []})
    assert text.index("maybe") < text.index("✗</span> no")
