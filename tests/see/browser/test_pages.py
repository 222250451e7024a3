"""Every page of the workbench in a real browser: typed into, clicked, slid, and by keyboard alone."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.model.gpt import GPT
from pellucid.pretrain.snapshots import save_snapshot
from pellucid.see.workbench import PAGES
from pellucid.text.tokenizer import Tokenizer

pytestmark = pytest.mark.browser
TEXT = "The red fox has a lamp."
ADDRESSES = [page.address for page in PAGES]
ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)> </p>\u202e\x1b"


def model_of(address: str, run_folder: Path) -> dict[str, str]:
    """The model that a page is about: of the quickstart, or the classifier or assistant in it."""
    return {"model": address if address in ("classifier", "assistant") else run_folder.name}


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_page_is_right_small_and_large_light_and_dark(
    visit: Any, chromium: Any, run_folder: Path, address: str, tmp_path: Path
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = visit.open(address, text=TEXT, **model_of(address, run_folder))
    assert page.locator("#problem").is_hidden()
    for width, scheme in ((1280, "light"), (360, "dark"), (1920, "light")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        visit.until("() => document.documentElement.scrollWidth <= innerWidth")  # it draws itself again
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    pictures = os.environ.get("PELLUCID_PICTURES")
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.emulate_media(color_scheme="light")
    if address == "assistant":
        page.fill("#question", "What is the opposite of hot?")
        page.keyboard.press("Enter")
        visit.until("() => document.querySelector('#why table')")
    page.wait_for_timeout(500)
    page.screenshot(path=Path(pictures or tmp_path) / f"{address}.png", full_page=False)


def test_tokens_are_cut_as_one_types_and_a_word_shows_its_merges(visit: Any) -> None:
    page = visit.open("tokens", text=TEXT)
    pieces = page.locator("#way-characters .token")
    assert pieces.count() == len(TEXT)
    page.fill("#text", "lamp")
    visit.until("() => document.querySelectorAll('#way-characters .token').length === 4")
    assert "text=lamp" in page.url
    page.locator("#way-model .token").first.click()
    assert page.locator("#tree svg text", has_text="l").count() > 0
    assert "6c" in page.locator("#piece").inner_text()
    first = page.locator("#way-characters .token").first
    first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#piece .verdict").inner_text() == "a"
    page.keyboard.press("End")
    assert page.locator("#piece .verdict").inner_text() == "p"


def test_the_way_of_a_sentence_keeps_text_and_model(visit: Any, run_folder: Path) -> None:
    page = visit.open("tokens", text="Anna has it.", model=run_folder.name)
    for one in PAGES[1:5]:
        visit.follow(f".top nav >> text={one.title}")
        assert page.locator("h1").inner_text() == one.title
        assert page.input_value("#text") == "Anna has it."
        assert page.input_value("#model") == run_folder.name
    page.go_back()
    visit.drawn()
    assert page.input_value("#text") == "Anna has it."


def test_embeddings_add_up_and_the_map_finds_neighbours(visit: Any) -> None:
    page = visit.open("embeddings", text=TEXT)
    page.locator("#sum .token").nth(2).click()
    page.locator("#number").focus()
    page.keyboard.press("End")
    said = page.locator("#sum .mono.small").inner_text()
    a, b, c = (float(value.replace("−", "-")) for value in re.findall(r"[−\d]*\d\.\d{6}", said))
    assert a + b == pytest.approx(c, abs=2e-6)
    page.fill("#search", "lamp")
    page.keyboard.press("Enter")
    visit.until("() => document.querySelector('#map h3').textContent.includes('lamp')")
    before = page.evaluate("document.querySelector('#map canvas').toDataURL()")
    page.click("#map [aria-label='Zoom in']")
    page.locator("#map canvas").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("+")
    assert page.evaluate("document.querySelector('#map canvas').toDataURL()") != before
    page.locator("#map table .token").first.click()
    page.locator("#map canvas").click(position={"x": 200, "y": 200})


def test_attention_shows_the_models_own_weights_step_by_step(visit: Any, run_folder: Path) -> None:
    page = visit.open("attention", text=TEXT, model=run_folder.name)
    page.locator("#steps [aria-label=Layer] button").nth(1).click()
    page.locator("#steps [aria-label=Head] button").nth(1).click()
    visit.until("() => document.querySelector('#square > p').textContent.startsWith('Layer 2, head 2')")
    page.locator("#looking .token").nth(3).click()
    shown = [float(text) for text in page.locator("#steps tbody td:nth-child(6)").all_inner_texts()]
    model, tokenizer = GPT.load(run_folder), Tokenizer.load(run_folder)
    ids = torch.tensor([[tokenizer.end_of_text, *tokenizer.encode(TEXT)]])
    seen: dict[str, Any] = {}
    attention = model.get_submodule("blocks.1.attention")
    attention.register_forward_pre_hook(lambda module, given: seen.update(x=given[0]))
    with torch.no_grad():
        model(ids)
        q, k, _ = attention.queries_keys_values(seen["x"], None)  # type: ignore[operator]
        scores = (q[0, 1] @ k[0, 1].T / q.shape[-1] ** 0.5).masked_fill(
            torch.ones(len(ids[0]), len(ids[0])).triu(1) > 0, -torch.inf
        )
    assert shown == pytest.approx(scores.softmax(dim=1)[3].tolist(), abs=1e-4)
    for step in range(6):
        page.locator("#steps [aria-label=Step] button").nth(step).click()
        assert page.locator("#steps > p").inner_text().startswith(f"{step + 1} of 6")
    page.locator("#steps [aria-label=Step] button").nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#steps > p").inner_text().startswith("2 of 6")
    page.locator("#dropout").focus()
    page.keyboard.press("ArrowRight")
    visit.until("() => document.querySelector('#steps > p').textContent.startsWith('5 of 6')")
    page.locator("#grid .heads button").first.click()
    visit.until("() => document.querySelector('#square > p').textContent.startsWith('Layer 1, head 1')")
    page.locator("#square canvas").click(position={"x": 150, "y": 150})
    page.fill("#others", "Ben has the lamp.\nThe lamp is red.")
    page.locator("#others").blur()
    visit.until("() => document.querySelectorAll('#compare canvas').length === 2")
    assert page.locator("#arcs path").count() > 0


def test_the_block_follows_token_and_layer(visit: Any) -> None:
    page = visit.open("block", text=TEXT)
    first = page.locator("#through tbody").inner_text()
    page.locator("#token-row .token").nth(1).click()
    visit.until("(before) => document.querySelector('#through tbody')?.innerText !== before", first)
    page.locator("#through [aria-label=Layer] button").first.focus()
    page.keyboard.press("ArrowRight")
    visit.until("() => document.querySelector('#through > p').textContent.startsWith('Block 2')")
    assert page.locator("#lengths svg circle").count() == 9  # two blocks: five stages of the stream, four additions
    assert page.locator("#adds tbody tr").count() == 5


def test_the_next_word_is_drawn_taken_and_taken_back(visit: Any) -> None:
    page = visit.open("next-word", text=TEXT)
    assert "all" in page.locator("label:has(#top_k) output").inner_text()
    page.locator("#top_k").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    visit.until("() => document.querySelector('#next > p').textContent.includes(': 3 of')")
    assert page.locator("#next tbody tr:not(.out)").count() == 3
    page.locator("#temperature").fill("0")
    visit.until("() => document.querySelector('#next > p').textContent.includes(': 1 of')")
    words = []
    for button in ("#draw", "#likeliest", "#next tbody button"):
        words.append(page.locator("#written").inner_text())
        page.locator(button).first.click()
        visit.until("(before) => document.querySelector('#written').innerText !== before", words[-1])
    assert len(re.findall(r"more=[\d%2C]+", page.url)) == 1
    for before in reversed(words):
        page.click("#back")
        visit.until("(text) => document.querySelector('#written').innerText === text", before)
    page.locator("#off .heads button").first.click()
    visit.until("() => document.querySelector('#off .says').textContent.includes('nats')")
    assert "all heads on" in page.locator("#next thead").inner_text()
    page.keyboard.press("Space")
    visit.until("() => document.querySelector('#off .says').textContent === 'All heads are on.'")
    assert page.locator("#lens tbody tr").count() == 3


def test_training_is_followed_while_it_goes_on(visit: Any, hostile_folder: Path) -> None:
    page = visit.open("training", model=hostile_folder.name)
    assert "30" in page.locator("#now").inner_text()
    with (hostile_folder / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 4, "split": "train", "loss": 1.25, "tokens": 40, "lr": 0.1, "grad_norm": 1, "tokens_per_s": 7}\n'
        )
    visit.until("() => document.querySelector('#now').innerText.includes('1.250')")
    assert "It trains now" in page.locator("#now").inner_text()
    assert page.locator("#timeline").is_hidden()
    save_snapshot(hostile_folder, GPT.load(hostile_folder), step=4, evaluation=1, evaluations=2)  # as training does
    with (hostile_folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "split": "val", "loss": 1.125, "tokens": 40}\n')
    visit.until("() => document.querySelector('#checkpoint').max === '1'")
    page.locator("#checkpoint").focus()
    page.keyboard.press("Home")
    assert page.locator("#step").inner_text() == "4 steps"


@pytest.mark.parametrize("visit", ["site_in_training"], indirect=True)
def test_the_curve_grows_while_another_process_trains(visit: Any) -> None:
    page = visit.open("training")
    assert "It trains now" in page.locator("#now").inner_text()
    seen = 0
    for _ in range(3):
        visit.until("(seen) => Number(document.querySelector('#now dd')?.textContent.replaceAll(',', '')) > seen", seen)
        seen = int(page.locator("#now dd").first.inner_text().replace(",", ""))
        drawn = page.locator("#curves svg").first.locator("path[fill=none]").first.get_attribute("d")
        visit.until(
            "(drawn) => document.querySelector('#curves svg path[fill=none]').getAttribute('d') !== drawn", drawn
        )
    assert page.locator("#model").input_value() == "young"


# Lines of the first chart, and dots: a run of a single step, as a busy machine makes it, has no line.
DRAWN = "document.querySelectorAll('#curves svg')[0].querySelectorAll('path[fill=none], circle').length"


def test_what_is_typed_and_pressed_stays_where_it_is(visit: Any, run_folder: Path) -> None:
    page = visit.open("classifier", model="classifier")
    page.locator("#message").press_sequentially("you won")
    page.set_viewport_size({"width": 1280, "height": 500})  # as when a telephone shows its keyboard
    page.wait_for_timeout(400)
    assert page.evaluate("document.activeElement.id") == "message"
    page = visit.open("assistant", model="assistant")
    page.fill("#output", "yes")
    page.set_viewport_size({"width": 700, "height": 500})
    drawn = "Number(document.body.dataset.drawn)"
    visit.until(f"() => {drawn} > 1")
    assert page.input_value("#output") == "yes"
    page = visit.open("training", model=run_folder.name)
    box, before = page.get_by_label("assistant", exact=True), page.evaluate(DRAWN)
    box.focus()
    page.keyboard.press("Space")
    visit.until(f"(few) => {DRAWN} > few", before)
    assert page.evaluate("document.activeElement.type") == "checkbox"


def test_an_old_answer_never_meets_a_new_text(visit: Any, run_folder: Path) -> None:
    problems = "window.said = []; new MutationObserver(() => said.push(document.querySelector('#problem').textContent))"
    page = visit.open("attention", text="Ben", model=run_folder.name)
    page.evaluate(f"{problems}.observe(document.querySelector('#problem'), {{ childList: true }})")
    held: list[Any] = []
    page.route("**/data/about*", lambda route: route.continue_() if held else held.append(route))
    page.fill("#text", "The")
    while not held:
        page.wait_for_timeout(5)
    page.fill("#text", TEXT)
    held[0].continue_()  # what the first text's tokens are is told when the next text already stands there,
    for _ in range(10):  # and is still being typed
        page.fill("#text", TEXT)
        page.wait_for_timeout(40)
    visit.until("(count) => document.querySelectorAll('#steps tbody tr').length === count", tokens_of(run_folder, TEXT))
    assert [text for text in page.evaluate("said") if text] == []


def tokens_of(run_folder: Path, text: str) -> int:
    """How many tokens the page has of a text, with the one before it."""
    return 1 + len(Tokenizer.load(run_folder).encode(text))


def test_runs_are_compared_and_samples_leafed_through(visit: Any, run_folder: Path) -> None:
    page = visit.open("training", model=run_folder.name)
    before = page.evaluate(DRAWN)
    page.get_by_label("assistant", exact=True).check()
    visit.until(f"(few) => {DRAWN} > few", before)
    assert "compare=" in page.url
    page.locator("#sample").focus()
    page.keyboard.press("Home")
    assert "step" in page.locator("#samples output").inner_text()


def test_the_slider_of_checkpoints_moves_every_page(visit: Any, run_folder: Path) -> None:
    numbers = {
        "embeddings": "#sum .mono.small",
        "attention": "#steps tbody",
        "block": "#through tbody",
        "next-word": "#next tbody",
    }
    page = visit.page
    for address, place in numbers.items():
        visit.open(address, text=TEXT, model=run_folder.name)
        now = page.locator(place).inner_text()
        page.locator("#checkpoint").focus()
        page.keyboard.press("Home")
        visit.until("([place, before]) => document.querySelector(place)?.innerText !== before", [place, now])
        assert page.locator("#step").inner_text() == "0 steps"
        untrained = page.locator(place).inner_text()
        page.keyboard.press("End")
        visit.until("([place, now]) => document.querySelector(place)?.innerText === now", [place, now])
        page.keyboard.press("Home")
        visit.follow(".top nav >> text=Training")
        assert page.locator("#step").inner_text() == "0 steps"
        assert page.locator("#curves title", has_text="checkpoint of step 0").count() == 4
        visit.follow(f".top nav >> text={next(one.title for one in PAGES if one.address == address)}")
        assert page.locator(place).inner_text() == untrained
    visit.follow(".top nav >> text=Assistant")
    assert page.locator("#timeline").is_hidden(), "a talk is with the model as it is"


def test_the_classifier_is_asked_and_its_threshold_moved(visit: Any) -> None:
    page = visit.open("classifier", model="classifier")
    page.fill("#message", "you won 500 dollars")
    visit.until("() => document.querySelectorAll('#live .moved span').length === 4")
    total = sum(float(text.split()[0].strip("<")) for text in page.locator("#live td.n").all_inner_texts())
    assert total == pytest.approx(100, abs=0.2)
    page.locator("#cut").focus()
    page.keyboard.press("Home")
    low = page.locator("#confusion tbody").inner_text()
    page.keyboard.press("End")
    assert page.locator("#confusion tbody").inner_text() != low
    assert page.locator("#calibration svg").count() == 1


def test_a_page_of_another_kind_of_model_offers_the_right_one(visit: Any, run_folder: Path) -> None:
    for address, own in (("classifier", "#message"), ("assistant", "#question")):
        page = visit.open(address, model=run_folder.name)
        visit.follow("#switch")
        visit.until("(name) => document.querySelector('#model').value === name", address)
        page.select_option("#model", run_folder.name)
        visit.until("() => document.querySelector('#switch')")
        page.select_option("#model", address)
        visit.until("(own) => document.querySelector(own) && !document.querySelector('#switch')", own)


@pytest.mark.parametrize("address", ADDRESSES)
def test_markup_in_texts_names_and_samples_is_shown_as_text(
    visit: Any, run_folder: Path, hostile_folder: Path, address: str
) -> None:
    compare = json.dumps([run_folder.name])
    page = visit.open(address, text=ATTACK, model=hostile_folder.name, others=ATTACK, compare=compare)
    page.wait_for_timeout(200)
    assert not set(page.locator("body").inner_text()) & set("\u202e\x1b")
    if address in ("attention", "next-word"):
        assert "</p>\\x202e\\x1b" in page.locator("#compare, #written").inner_text().replace("\ufffd" * 3, "\\x202e")
    assert page.locator("#views script, #views img, #views b").count() == 0
    assert page.input_value("#text") == ATTACK
    assert "<img src=x onerror=alert(1)>" in page.locator("#model").inner_text()
    if address == "training":
        assert "<script>alert(1)</script>" in page.locator("#samples").inner_text()
        assert "\x1b" not in page.locator("#samples").inner_text()


def test_any_view_saves_as_png_svg_and_html_that_work_from_a_disk(visit: Any, chromium: Any, tmp_path: Path) -> None:
    page = visit.open("attention", text=TEXT)
    saved: dict[str, Path] = {}
    for view, kind in (("square", "PNG"), ("steps", "SVG"), ("arcs", "SVG"), ("steps", "HTML"), ("arcs", "PNG")):
        page.click(f"#{view} .save summary")
        with page.expect_download() as download:
            page.click(f"#{view} .save button:has-text('{kind}')")
        saved[f"{view}.{kind.lower()}"] = tmp_path / f"{view}.{kind.lower()}"
        download.value.save_as(saved[f"{view}.{kind.lower()}"])
    for name in ("square.png", "arcs.png"):
        content = saved[name].read_bytes()
        assert content.startswith(b"\x89PNG")
        assert struct.unpack(">II", content[16:24]) > (300, 100)
    assert "foreignObject" not in saved["arcs.svg"].read_text()
    assert "var(" not in saved["arcs.svg"].read_text()
    context = chromium.new_context()
    tab, complaints = context.new_page(), []
    tab.on("console", lambda said: complaints.append(said.text))
    tab.on(
        "request",
        lambda request: complaints.append(request.url) if not request.url.startswith(("file:", "data:")) else None,
    )
    for name in ("steps.svg", "arcs.svg", "steps.html"):
        tab.goto(saved[name].as_uri())
        assert "lamp" in tab.evaluate("document.documentElement.textContent")
    assert tab.locator("table.sums tbody tr").count() > 3
    assert not complaints
    context.close()


def test_an_error_is_said_on_the_page(visit: Any) -> None:
    page = visit.open("attention", text=TEXT, layer="77")
    assert "found 77" in page.locator("#problem").inner_text()
    visit.complaints = [text for text in visit.complaints if "400" not in text]
    assert json.loads(page.evaluate("JSON.stringify(document.body.dataset.drawn)")) == "1"
