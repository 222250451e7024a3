"""What CUDA alone does in decoding: steps are captured, replayed and forgotten, and say what the processor says."""

from __future__ import annotations

import gc
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.config import PRESETS
from pellucid.generation.continuous import Continuous
from pellucid.generation.decoder import load_decoder
from pellucid.generation.engine import continue_plainly, stream_ids
from pellucid.generation.fast import FastReader
from pellucid.generation.graphed.model import GraphedModel
from pellucid.generation.graphed.step import LEAST
from pellucid.generation.sampling import GREEDY
from pellucid.model.gpt import GPT
from pellucid.runtime import PellucidError
from pellucid.text.bpe import BPETokenizer
from tests.generation.lively import lively_model
from tests.model.families import TINY, difference, lively, some_ids

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]
DEVICE = "cuda"
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}  # of the largest logit


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("slots", [1, 2, 7])
@pytest.mark.parametrize("name", TINY)
def test_a_replayed_step_gives_the_logits_of_the_eager_one_and_of_the_readable_model_on_the_processor(
    name: str, slots: int, dtype: Any
) -> None:
    model = lively(TINY[name])
    texts = some_ids(model.config, slots, 40)
    expected = model(texts)
    graphed = GraphedModel.of(model, dtype, DEVICE)
    room = graphed.slots(slots)
    for slot in range(slots):  # each text as long as its slot's number says
        count = 20 + slot
        graphed.logits(room, texts[slot, :count].tolist(), [slot] * count, range(count))
    for more in range(8):  # the first step is captured, the others are replayed
        places = [20 + slot + more for slot in range(slots)]
        ids = [int(texts[slot, place]) for slot, place in enumerate(places)]
        found = torch.from_numpy(graphed.logits(room, ids, range(slots), places, range(slots)))
        assert difference(found, expected[range(slots), places]) < TOLERANCE[dtype]
    step = room.step(1)
    with torch.inference_mode():
        step.compute(graphed.model)
    assert difference(step._logits[:, 0].cpu(), found) < TOLERANCE[dtype] / 10


@pytest.mark.parametrize("look_ahead", [True, False])
def test_greedy_texts_are_those_of_the_processor_also_past_the_window(look_ahead: bool) -> None:
    model = lively_model(50, context_length=48, seed=1)
    prompt = [3, 1, 4, 1, 5, 9, 2, 6] * 3
    reader = FastReader(GraphedModel.of(model, device=DEVICE), look_ahead)
    assert list(stream_ids(reader, prompt, 100, GREEDY)) == continue_plainly(model, prompt, 100)


def test_texts_that_come_and_go_are_what_each_is_alone(model: GPT, tokenizer: BPETokenizer) -> None:
    machine = Continuous(GraphedModel.of(model, device=DEVICE), tokenizer, max_rows=3, chunk=5)
    prompts = [[row + 1, *range(20, 24 + 3 * row)] for row in range(6)]
    handles, events = [], []
    for prompt in prompts:
        handles.append(machine.add(prompt, 25, stop_tokens=()))
        events += machine.step()
    while machine.active:
        events += machine.step()
    for handle, prompt in zip(handles, prompts, strict=True):
        assert [event.token for event in events if event.handle == handle] == continue_plainly(model, prompt, 25)


def test_a_step_is_captured_anew_when_its_memory_has_moved() -> None:
    model = lively(replace(TINY["llama"], context_length=2 * LEAST))
    ids = some_ids(model.config, 1, 2 * LEAST)
    expected = model(ids)[0]
    graphed = GraphedModel.of(model, device=DEVICE)
    room = graphed.slots(2)
    graphed.logits(room, ids[0, : LEAST - 3].tolist(), [1] * (LEAST - 3), range(LEAST - 3))
    for place in range(LEAST - 3, LEAST + 3):
        found = torch.from_numpy(graphed.logits(room, [int(ids[0, place])], [1], [place]))
        assert difference(found[0], expected[place]) < TOLERANCE["float32"]


def test_models_in_threads_of_their_own_capture_and_replay_beside_each_other() -> None:
    models = [lively_model(50, context_length=2 * LEAST, seed=seed) for seed in range(4)]
    graphed = [GraphedModel.of(model, device=DEVICE) for model in models]
    count = LEAST + 20  # so that all capture at the beginning, and again later

    def write(model: GraphedModel) -> list[int]:
        return list(stream_ids(FastReader(model), [1, 2, 3], count, GREEDY))

    with ThreadPoolExecutor(len(models)) as pool:
        found = list(pool.map(write, graphed))
    assert found == [list(stream_ids(FastReader(each), [1, 2, 3], count, GREEDY)) for each in graphed]
    assert found[0][:40] == continue_plainly(models[0], [1, 2, 3], 40)


def test_gpt2_of_real_size_writes_what_the_processor_writes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GPT(PRESETS["gpt2"]).eval()
    model.save(tmp_path)
    prompt = [7 * place % 50_000 for place in range(30)]
    expected = continue_plainly(model, prompt, 20)
    assert list(stream_ids(FastReader(load_decoder(tmp_path, device=DEVICE)), prompt, 20, GREEDY)) == expected


def test_memory_is_given_back() -> None:
    def used() -> int:
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated()

    def write() -> None:
        model = GraphedModel.of(lively_model(50, context_length=2 * LEAST), device=DEVICE)
        list(stream_ids(FastReader(model), [1, 2, 3], LEAST + 5, GREEDY))

    write()  # libraries keep rooms of their own from here on
    before = used()
    for _ in range(3):
        write()
    assert used() == before


def test_more_texts_than_there_is_memory_for_are_refused_in_a_line_and_what_fits_goes_on(model: GPT) -> None:
    graphed = GraphedModel.of(model, device=DEVICE)
    free, _ = torch.cuda.mem_get_info()
    many = graphed.slots(free // (model.config.n_layers * model.config.context_length * model.config.d_model))
    with pytest.raises(PellucidError, match=r"^--device cuda(:0)?: found no memory left .* --device cpu\.$"):
        graphed.logits(many, [1], [0], [0])
    assert list(stream_ids(FastReader(graphed), [1, 2], 10, GREEDY)) == continue_plainly(model, [1, 2], 10)


def test_the_command_line_takes_the_gpu_by_itself_and_says_the_same(call: Any, base_folder: Path) -> None:
    def said(*more: object) -> str:
        asked = ("--prompt", "The", "--max-tokens", 40, "--temperature", 0, "--json", *more)
        done = call("generate", base_folder, *asked)
        assert done.returncode == 0, done.stderr
        text: str = json.loads(done.stdout)["text"]
        return text

    assert said() == said("--device", DEVICE) == said("--device", "cpu")
    assert said("--device", DEVICE, "--dtype", "bfloat16")
    assert said("--dtype", "int8"), "which the processor alone has"
