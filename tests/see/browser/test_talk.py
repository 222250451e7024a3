"""The page Assistant in a real browser: a talk that streams, fails, is forgotten; the mask of an example."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser
QUESTION = "What is the opposite of hot?"


def test_a_talk_streams_and_every_word_says_why(visit: Any) -> None:
    page = visit.open("assistant", model="assistant")
    page.fill("#question", QUESTION)
    page.keyboard.press("Enter")
    visit.until("() => !document.querySelector('#why').hidden")
    words = page.locator("#talk .said")
    talk = {"model": "assistant", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 120}
    whole = page.request.post(f"{visit.site}/v1/chat/completions", data=talk | {"temperature": 0, "logprobs": True})
    answer = whole.json()["choices"][0]
    assert page.locator("#talk .assistant").inner_text() == answer["message"]["content"]
    assert words.count() == len(answer["logprobs"]["content"]) > 0
    shares = [float(text.split()[0].strip("<")) for text in page.locator("#why td.n").all_inner_texts()]
    assert 0 < sum(shares) <= 101
    assert shares == sorted(shares, reverse=True)
    assert page.locator("#why tr.drawn").count() == page.locator("#why tbody tr:first-child.drawn").count() == 1
    words.first.focus()
    page.keyboard.press("End")
    assert words.last.get_attribute("aria-pressed") == "true"
    page.click("#forget")
    assert page.locator("#talk .talk p").count() == 0


@pytest.fixture
def talks(visit: Any) -> Iterator[list[Any]]:
    """What the page asked of the assistant: each request waits until the test answers it."""
    held: list[Any] = []
    visit.page.route("**/v1/chat/completions", lambda route: held.append(route))
    visit.open("assistant", model="assistant")
    yield held
    for route in held:
        with suppress(Exception):  # it has been answered, or given up
            route.abort()


def say(visit: Any, talks: list[Any], text: str) -> Any:
    """Send a message; the request that waits, and the messages in it."""
    before = len(talks)
    visit.page.fill("#question", text)
    visit.page.keyboard.press("Enter")
    while len(talks) == before:
        visit.page.wait_for_timeout(5)
    return talks[-1], [message["content"] for message in talks[-1].request.post_data_json["messages"]]


def streamed(*tokens: bytes) -> dict[str, str]:
    """An answer of these tokens, as the server sends it."""
    rows: list[dict[str, Any]] = [
        {"token": str(token), "logprob": -0.5, "bytes": list(token), "top_logprobs": []} for token in tokens
    ]
    delta = {"delta": {"content": b"".join(tokens).decode()}, "logprobs": {"content": rows}}
    return {
        "content_type": "text/event-stream",
        "body": f"data: {json.dumps({'choices': [delta]})}\n\ndata: [DONE]\n\n",
    }


def test_a_talk_that_is_forgotten_while_an_answer_streams_stays_forgotten(visit: Any, talks: list[Any]) -> None:
    held, _ = say(visit, talks, "A secret.")
    assert "A secret." in visit.page.locator("#talk .talk").inner_text()
    visit.page.click("#forget")
    with suppress(Exception):  # it has been given up
        held.fulfill(**streamed(b"No."))
    visit.page.wait_for_timeout(100)
    assert visit.page.locator("#talk .talk p").count() == 0
    held, messages = say(visit, talks, "Who are you?")
    assert messages == ["Who are you?"]
    held.fulfill(**streamed(b"Ben."))
    visit.until("() => !document.querySelector('#why').hidden")
    assert say(visit, talks, "Really?")[1] == ["Who are you?", "Ben.", "Really?"]


def test_another_model_knows_nothing_of_the_talk(visit: Any, talks: list[Any], run_folder: Path) -> None:
    held, _ = say(visit, talks, "A secret.")
    held.fulfill(**streamed(b"Oh."))
    visit.until("() => !document.querySelector('#why').hidden")
    visit.page.select_option("#model", run_folder.name)
    visit.until("() => document.querySelector('#switch')")
    assert visit.page.locator("#why").is_hidden()
    visit.page.select_option("#model", "assistant")
    visit.until("() => document.querySelector('#question')")
    assert say(visit, talks, "Hello.")[1] == ["Hello."]


def test_a_question_without_an_answer_can_be_asked_again(visit: Any, talks: list[Any]) -> None:
    held, _ = say(visit, talks, "Who has it?")
    held.fulfill(status=429, json={"error": {"message": "too much to do"}})
    visit.until("() => document.querySelector('#problem').textContent === 'too much to do'")
    assert visit.page.input_value("#question") == "Who has it?"
    assert visit.page.locator("#talk .talk p").count() == 0
    held, messages = say(visit, talks, "Who has it?")
    assert messages == ["Who has it?"]
    visit.complaints = [text for text in visit.complaints if "429" not in text]


def test_a_character_of_several_tokens_is_shown_whole(visit: Any, talks: list[Any]) -> None:
    from axe_playwright_python.sync_playwright import Axe

    held, _ = say(visit, talks, "Hello.")
    held.fulfill(**streamed(b"I say \xe4", b"\xbd", b"\xa0\xe5\xa5", b"\xbd."))
    visit.until("() => !document.querySelector('#why').hidden")
    assert visit.page.locator("#talk .assistant").inner_text() == "I say 你好."
    assert Axe().run(visit.page).violations_count == 0


def test_the_mask_of_an_example_is_shown_and_typed(visit: Any) -> None:
    page = visit.open("assistant", model="assistant")
    first = page.locator("#mask .mask").inner_text()
    page.locator("#example").focus()
    page.keyboard.press("ArrowRight")
    visit.until("(before) => document.querySelector('#mask .mask').innerText !== before", first)
    page.fill("#output", "yes")
    visit.until(
        "() => [...document.querySelectorAll('.trained')].map((e) => e.textContent).join('') === 'yes<|endoftext|>'"
    )
