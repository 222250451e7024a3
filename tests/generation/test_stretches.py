"""Long stretches of a text: the same logits as the compiled pass and the readable model, in any company."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pellucid.generation.compiled import stretches
from pellucid.generation.compiled.model import CompiledModel
from pellucid.generation.compiled.stretches import LONG, Stretches
from pellucid.generation.compiled.tiles import bytes_are_fastest
from pellucid.generation.engine import continue_plainly, stream_ids
from pellucid.generation.fast import FastReader
from pellucid.generation.sampling import GREEDY
from tests.model.families import TINY, difference, lively, some_ids

TOKENS = LONG + 70
# Of the largest logit: what is rounded in the products and in the cache; the compiled pass takes vectors as bytes, too,
# where matrices are, and a stretch does not; a stretch rounds vectors to bfloat16, too, and the compiled pass does not.
TOLERANCE = {"float32": 5e-6, "bfloat16": 0.06, "int8": 0.06, "int4": 0.06}
WIDE = {name: replace(config, context_length=2 * TOKENS) for name, config in TINY.items()}


def token_by_token(compiled: CompiledModel, ids: list[int]) -> np.ndarray[Any, Any]:
    """The logits after all of `ids`, by the compiled pass alone."""
    slots = compiled.slots(1)
    for place, token in enumerate(ids):
        logits = compiled.logits(slots, [token], [0], [place])
    return logits[0]


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_after_a_long_prompt_are_those_of_the_readable_model(name: str, dtype: Any) -> None:
    model = lively(WIDE[name])
    ids = some_ids(model.config, 1, TOKENS)
    reader = FastReader(CompiledModel.of(model, dtype))
    assert difference(reader.read(ids.tolist())[0], model(ids)[0, -1]) < TOLERANCE[dtype]
    more = torch.cat([ids, ids[:, :1]], dim=1)
    assert difference(reader.step([int(ids[0, 0])])[0], model(more)[0, -1]) < TOLERANCE[dtype]


@pytest.mark.parametrize("name", ["gpt2", "mistral", "qwen3"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
def test_a_stretch_leaves_in_the_slot_what_the_compiled_pass_would(
    name: str, dtype: Any, products: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stretches, "TOGETHER", 50)  # so that one stretch takes several goes
    model = lively(WIDE[name])
    compiled = CompiledModel.of(model, dtype, threads=1)
    ids = some_ids(model.config, 1, TOKENS)[0].tolist()
    slots = compiled.slots(3)
    slots.grow(TOKENS)
    reader = Stretches(model.config, compiled.packed, products, threads=1)
    reader.read(ids[:40], slots.cache, 1, 0)
    reader.read(ids[40:-1], slots.cache, 1, 40)
    found = compiled.logits(slots, ids[-1:], [1], [TOKENS - 1])[0]
    tolerance = max(TOLERANCE[dtype], TOLERANCE["bfloat16"] if products == torch.bfloat16 else 0)
    assert difference(torch.from_numpy(found), torch.from_numpy(token_by_token(compiled, ids))) < tolerance
    assert not slots.cache.keys[:, 0].any() and not slots.cache.values[:, 2].any()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_long_and_short_texts_together_get_the_bits_that_each_gets_alone(dtype: Any) -> None:
    model = lively(WIDE["gpt2"])
    compiled = CompiledModel.of(model, dtype)
    texts = [some_ids(model.config, 1, length, seed=length)[0].tolist() for length in (TOKENS, 5, LONG + 1, LONG)]
    together = FastReader(compiled).read(texts)
    alone = torch.cat([FastReader(compiled).read([text]) for text in texts])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_a_long_prompt_takes_the_way_that_is_fastest_here(dtype: Any) -> None:
    model = lively(WIDE["gpt2"])
    compiled = CompiledModel.of(model, dtype)
    ids = some_ids(model.config, 1, TOKENS)[0].tolist()
    found = FastReader(compiled).read([ids])[0]
    assert difference(found, torch.from_numpy(token_by_token(compiled, ids))) < TOLERANCE[dtype]
    assert (compiled._stretches is None) == (dtype in ("int8", "int4") and bytes_are_fastest())


def test_of_the_last_block_a_stretch_takes_keys_and_values_alone() -> None:
    model = lively(WIDE["gpt2"])
    compiled = CompiledModel.of(model)
    blocks = Stretches(model.config, compiled.packed, torch.float32, threads=1).model.blocks
    assert [hasattr(block, "feed_forward") for block in blocks] == [True] * (len(blocks) - 1) + [False]


def test_where_logits_are_wanted_in_the_midst_the_stretch_ends_there() -> None:
    model = lively(WIDE["llama"])
    compiled = CompiledModel.of(model)
    ids = some_ids(model.config, 1, TOKENS)
    for wanted in ([TOKENS - 1], [LONG, LONG + 3, TOKENS - 1], [0, TOKENS - 1], list(range(TOKENS))):
        found = compiled.logits(compiled.slots(1), ids[0].tolist(), [0] * TOKENS, range(TOKENS), wanted)
        assert difference(torch.from_numpy(found), model(ids)[0, wanted]) < TOLERANCE["float32"]


@pytest.mark.parametrize("name", ["gpt2", "mistral"])
def test_a_long_prompt_goes_on_as_the_textbook_says_also_past_the_context(name: str) -> None:
    model = lively(WIDE[name])
    prompt = some_ids(model.config, 1, TOKENS)[0].tolist()
    found = list(stream_ids(FastReader(CompiledModel.of(model)), prompt, TOKENS + 30, GREEDY))
    assert found == continue_plainly(model, prompt, TOKENS + 30)
