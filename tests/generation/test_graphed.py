"""Decoding on a device: the same logits as the readable model, however the tokens come. Here it is the processor.

What these leave is what CUDA alone does, capturing a step and replaying it: test_graphed_gpu.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pellucid.config import ModelConfig
from pellucid.generation.compiled.model import CompiledModel
from pellucid.generation.decoder import load_decoder
from pellucid.generation.engine import continue_plainly, decode, stream_ids
from pellucid.generation.fast import FastReader
from pellucid.generation.graphed.model import FEW, TOGETHER, GraphedModel
from pellucid.generation.graphed.step import LEAST, said_plainly
from pellucid.generation.reader import Reader
from pellucid.generation.sampling import GREEDY, Sampling
from pellucid.model.gpt import GPT
from pellucid.runtime import ConfigError, PellucidError
from tests.generation.lively import lively_model
from tests.model.families import TINY, difference, lively, some_ids

TOLERANCE = 1e-5  # of the largest logit


@pytest.fixture(scope="module")
def families() -> dict[str, GPT]:
    return {name: lively(config) for name, config in TINY.items()}


@pytest.mark.parametrize("name", TINY)
@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(st.one_of(st.just(1), st.integers(2, 8), st.integers(9, 30)), min_size=1, max_size=48),
    slots=st.integers(1, 3),
)
def test_logits_are_those_of_the_readable_model_however_a_text_is_cut(
    families: dict[str, GPT], name: str, cuts: list[int], slots: int
) -> None:
    """By steps of one token, by steps of a few (where there is one slot), and by whole passes, in any order."""
    ids = some_ids(TINY[name], 1, TINY[name].context_length)
    expected = families[name](ids)[0]
    graphed = GraphedModel.of(families[name])
    room, done = graphed.slots(slots), 0
    for cut in cuts:
        places = range(done, min(done + cut, ids.shape[1]))
        if places:
            part = ids[0, places.start : places.stop].tolist()
            wanted = list(range(len(part)))[len(part) // 2 :]
            found = torch.from_numpy(graphed.logits(room, part, [slots - 1] * len(part), places, wanted))
            assert difference(found, expected[places.start : places.stop][wanted]) < TOLERANCE
            done = places.stop


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "qwen3 window"])
@settings(max_examples=15, deadline=None)
@given(calls=st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4).filter(any), min_size=1, max_size=20))
def test_a_text_is_what_it_is_alone_whichever_others_a_call_holds(
    families: dict[str, GPT], name: str, calls: list[list[int]]
) -> None:
    """A slot that a step leaves out keeps what it holds."""
    texts = some_ids(TINY[name], 4, TINY[name].context_length)
    expected = families[name](texts)
    graphed = GraphedModel.of(families[name])
    room, lengths = graphed.slots(4), [0] * 4
    for counts in calls:
        asked = [range(length, min(length + count, 48)) for length, count in zip(lengths, counts, strict=True)]
        rows = [(slot, place) for slot in (2, 0, 3, 1) for place in asked[slot]]
        if rows:
            which, places = zip(*rows, strict=True)
            ids = [int(texts[row]) for row in rows]
            found = torch.from_numpy(graphed.logits(room, ids, which, places, range(len(rows))))
            assert difference(found, expected[list(which), list(places)]) < TOLERANCE
            lengths = [max(length, place.stop) for length, place in zip(lengths, asked, strict=True)]


def test_slots_grow_with_what_they_hold_and_a_beginning_is_taken_over_afterwards() -> None:
    config = ModelConfig(vocab_size=50, context_length=TOGETHER + 300, d_model=16, n_layers=2, n_heads=2)
    model = lively(config)
    ids = some_ids(config, 1, config.context_length)[0].tolist()
    with torch.inference_mode():
        expected = model(torch.tensor([ids]))[0]
    graphed = GraphedModel.of(model)
    room = graphed.slots(2)
    graphed.logits(room, ids[: LEAST - 2], [0] * (LEAST - 2), range(LEAST - 2))
    assert room.length == LEAST
    for place in range(LEAST - 2, LEAST + 2):  # over the end of the memory that the steps began with
        found = torch.from_numpy(graphed.logits(room, ids[place : place + 1], [0], [place]))
        assert difference(found[0], expected[place]) < TOLERANCE
    assert room.length == 2 * LEAST
    room.copy(0, 1, LEAST)
    rest = range(LEAST, len(ids))
    found = torch.from_numpy(graphed.logits(room, ids[LEAST:], [1] * len(rest), rest, [0, TOGETHER, len(rest) - 1]))
    assert difference(found, expected[[LEAST, LEAST + TOGETHER, -1]]) < TOLERANCE
    assert room.length == config.context_length


class Staying(TorchDispatchMode):
    """Fails where an operation meets a tensor that does not lie on the device, or wants to know a number of one."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        away = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor) and one.device.type != "meta"]
        assert not away, f"{func} reads what lies elsewhere: a capture would fail there"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("width", [1, FEW])
@pytest.mark.parametrize("name", TINY)
def test_a_step_never_leaves_the_device_as_a_capture_demands(families: dict[str, GPT], name: str, width: int) -> None:
    """On "meta", where a tensor has no numbers that one could ask for."""
    graphed = GraphedModel.of(families[name], device="meta")
    room = graphed.slots(3)
    room.make_room(1, graphed.config.context_length)
    step = room.step(width)
    with torch.inference_mode(), Staying() as watched:
        step.compute(graphed.model)
    assert watched.operations > 10 * graphed.config.n_layers


def test_greedy_texts_are_those_of_a_model_without_a_cache_also_past_the_window() -> None:
    model = lively_model(50, context_length=96, seed=1)
    prompt = [3, 1, 4, 1, 5, 9, 2, 6] * 3
    ahead, plain = (FastReader(GraphedModel.of(model), look_ahead) for look_ahead in (True, False))
    expected = continue_plainly(model, prompt, 150)
    assert [list(stream_ids(reader, prompt, 150, GREEDY)) for reader in (ahead, plain)] == [expected] * 2
    assert ahead.passes < plain.passes  # so that guesses were right, and taken


def test_several_prompts_at_once_are_continued_as_each_alone(model: GPT) -> None:
    prompts = [[1, 2, 3], [4], [1, 2, 3, 9, 8, 7, 6, 5, 4, 3, 2], [1, 2, 3]]
    together = torch.stack(list(decode(FastReader(GraphedModel.of(model)), prompts, 40)), dim=1).tolist()
    assert together == [continue_plainly(model, prompt, 40) for prompt in prompts]


def test_what_is_drawn_is_what_the_readable_reader_draws(model: GPT) -> None:
    for seed, sampling in enumerate([Sampling(1.0), Sampling(0.8, top_k=20, repetition_penalty=1.3)]):
        found = list(stream_ids(FastReader(GraphedModel.of(model)), [5, 6], 60, sampling, seed))
        assert found == list(stream_ids(Reader(model), [5, 6], 60, sampling, seed))


@pytest.mark.parametrize("tokens", [1, 5, 20])
def test_what_was_broken_off_in_the_middle_leaves_nothing_behind(model: GPT, tokens: int) -> None:
    graphed = GraphedModel.of(model)
    reader, text = FastReader(graphed), list(range(40, 40 + tokens))
    reader.read([[7, 8]])

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    hook = graphed.model.blocks[1].register_forward_hook(interrupt)  # the first block has written its part
    with pytest.raises(KeyboardInterrupt):
        reader.read([[7, 8, *text]])
    hook.remove()
    torch.testing.assert_close(reader.read([[7, 9, *text]]), Reader(model).read([[7, 9, *text]]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("ids", "which", "places"), [([4000], [0], [0]), ([-1], [0], [0]), ([1], [2], [0]), ([1], [0], [99])]
)
def test_what_there_is_not_is_refused_before_the_device_reads_it(
    model: GPT, ids: list[int], which: list[int], places: list[int]
) -> None:
    graphed = GraphedModel.of(model)
    slots = graphed.slots(2)
    with pytest.raises(IndexError, match="expected 0 to"):
        graphed.logits(slots, ids, which, places)
    assert not slots.keys.any()


def test_bfloat16_is_near_and_takes_half_of_weights_and_cache(families: dict[str, GPT]) -> None:
    for name in ("gpt2 sinusoidal", "llama", "mistral"):
        ids = some_ids(TINY[name], 1, 40)
        whole, half = GraphedModel.of(families[name]), GraphedModel.of(families[name], "bfloat16")
        assert (half.dtype, half.nbytes, half.number_bytes) == ("bfloat16", whole.nbytes // 2, 2)
        room = half.slots(2)
        half.logits(room, ids[0, :-2].tolist(), [1] * 38, range(38))
        found = [half.logits(room, [int(ids[0, place])], [1], [place])[0] for place in (38, 39)]
        assert difference(torch.from_numpy(np.stack(found)), families[name](ids)[0, 38:]) < 0.05
        assert room.keys.dtype == torch.bfloat16


@pytest.mark.parametrize("kept", ["float32", "bfloat16", "int8", "int4"])
def test_a_folder_keeps_its_precision_and_a_quantised_one_loses_nothing(
    call: Any, base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: str
) -> None:
    folder = base_folder
    if kept == "bfloat16":
        folder = in_bfloat16(base_folder, tmp_path)
    elif kept != "float32":
        folder = tmp_path / kept
        assert call("quantize", base_folder, "--to", kept, "--out", folder).returncode == 0
    capsys.readouterr()
    graphed = GraphedModel.load(folder, device="cpu")
    assert graphed.dtype == ("bfloat16" if kept == "bfloat16" else "float32")
    said = f"{kept} becomes float32 on cpu; --dtype bfloat16 takes half the memory"
    assert (said in capsys.readouterr().err) == (kept in ("int8", "int4"))
    ids = some_ids(graphed.config, 1, 30)
    found = graphed.logits(graphed.slots(1), ids[0].tolist(), [0] * 30, range(30), range(30))
    tolerance = 0.05 if kept == "bfloat16" else TOLERANCE
    assert difference(torch.from_numpy(found), GPT.load(folder)(ids)[0]) < tolerance
    assert graphed.parameter_count() == CompiledModel.load(folder).parameter_count()


def in_bfloat16(folder: Path, where: Path) -> Path:
    """A copy as transformers writes it in half the size."""
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(where / "half")
    return where / "half"


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_few_bits_are_for_the_processor_and_the_message_says_so(base_folder: Path, dtype: Any) -> None:
    with pytest.raises(ConfigError, match=r"found int. on cuda; expected auto, float32 or bfloat16\. --device cpu"):
        GraphedModel.load(base_folder, dtype, "cuda")
    assert load_decoder(base_folder, dtype).dtype == dtype  # what picks by itself picks the processor


def test_memory_that_runs_out_and_gpus_that_torch_does_not_know_are_one_plain_line() -> None:
    for error, said in (
        (torch.OutOfMemoryError("Tried to allocate 2 GiB.\nhints"), r"no memory left \(Tried to allocate 2 GiB\.\)"),
        (RuntimeError("MPS backend out of memory"), r"no memory left \(MPS backend out of memory\)"),
        (torch.AcceleratorError("no kernel image\nhints"), r"cannot use \(no kernel image\)"),
    ):
        expected = rf"^--device cuda: found .*{said}; expected .* --device cpu"
        with pytest.raises(PellucidError, match=expected) as caught, said_plainly(torch.device("cuda")):
            raise error
        assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match="a mistake of ours"), said_plainly(torch.device("cuda")):
        raise RuntimeError("a mistake of ours")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
@pytest.mark.parametrize("verb", [("generate", "--prompt", "The"), ("chat",), ("serve",)])
def test_a_device_that_is_not_here_is_refused_by_those_that_are(
    call: Any, base_folder: Path, verb: tuple[str, ...]
) -> None:
    done = call(verb[0], base_folder, *verb[1:], "--device", "cuda", stdin="Hi\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pellucid: --device: found 'cuda'; expected auto or one that is here (")


def test_the_processor_is_taken_where_it_is_asked_for_and_where_no_gpu_is(call: Any, base_folder: Path) -> None:
    assert isinstance(load_decoder(base_folder, device="cpu"), CompiledModel)
    assert isinstance(load_decoder(base_folder), GraphedModel if torch.cuda.is_available() else CompiledModel)
    asked = ("--prompt", "The", "--max-tokens", 5, "--device", "cpu")
    assert call("generate", base_folder, *asked).returncode == 0
