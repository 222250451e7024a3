"""A model folder from anywhere: whatever is wrong with its files, it loads the same tensors or says what is wrong."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from pellucid.compute import peak_memory_bytes
from pellucid.config import ModelConfig
from pellucid.model.formats.folder import read_model_folder
from pellucid.model.gpt import GPT
from pellucid.runtime import ConfigError, DataError

CONFIG = ModelConfig(vocab_size=11, context_length=8, d_model=8, n_layers=2, n_heads=2)
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")

Change = Callable[[bytes, random.Random], bytes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in one file."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    GPT(CONFIG).save(folder)
    return folder


@pytest.fixture(scope="module")
def sharded(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in two files and an index."""
    folder = tmp_path_factory.mktemp("sharded")
    tensors = load_file(whole / WEIGHTS)
    places = {name: SHARDS[number % 2] for number, name in enumerate(tensors)}
    for shard in SHARDS:
        save_file({name: tensors[name] for name, place in places.items() if place == shard}, folder / shard)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    (folder / "config.json").write_bytes((whole / "config.json").read_bytes())
    return folder


# ---------------------------------------------------------------- 500 damaged files


def head_end(content: bytes) -> int:
    """Where what we may change ends: the header of a safetensors file (its numbers carry no check), else all."""
    length = int.from_bytes(content[:8], "little")
    return 8 + length if content[8:9] == b"{" and length < len(content) else len(content)


def cut(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content))]


def flip(content: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(head_end(content))
    return content[:place] + bytes([content[place] ^ 1 << dice.randrange(8)]) + content[place + 1 :]


def remove(content: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(head_end(content))
    return content[:place] + content[place + dice.randint(1, 12) :]


def insert(content: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(head_end(content))
    return content[:place] + dice.randbytes(dice.randint(1, 12)) + content[place:]


def repeat(content: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(head_end(content))
    return content[:place] + content[max(0, place - dice.randint(1, 60)) :]


def lie_about_the_length(content: bytes, dice: random.Random) -> bytes:
    return struct.pack("<Q", dice.choice([0, 1, 2**20, 2**32, 2**63, 2**64 - 1])) + content[8:]


VALUES: list[Any] = [None, True, -1, 0, 1, 2**31, 2**62, 10**30, 0.5, 1e308, "", "gpt2", "../x", [], [1], {}, [[[]]]]
DEEP = b"[" * 100_000


def change_a_value(content: bytes, dice: random.Random) -> bytes:
    """Another value somewhere in the JSON, at any depth; the header's length is set right again."""
    is_header = content[8:9] == b"{"
    end = head_end(content)
    tree = json.loads(content[8:end] if is_header else content)
    node: Any = tree
    while True:
        key = dice.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], dict | list) or not node[key] or dice.random() < 0.2:
            break
        node = node[key]
    if dice.random() < 0.2 and isinstance(node, dict):
        del node[key]
    else:
        node[key] = dice.choice(VALUES)
    text = json.dumps(tree).encode()
    if dice.random() < 0.1:
        text = dice.choice([DEEP, text[:-1] + b"," + text[1:], text.replace(b"1", b"1" * 5_000, 1)])
    return struct.pack("<Q", len(text)) + text + content[end:] if is_header else text


CHANGES: list[Change] = [cut, flip, remove, insert, repeat, lie_about_the_length, change_a_value, change_a_value]


def test_five_hundred_damaged_files_load_the_same_tensors_or_say_what_is_wrong(whole: Path, sharded: Path) -> None:
    _, expected, _ = read_model_folder(whole)
    dice = random.Random(4)
    before = peak_memory_bytes()
    errors = 0
    for number in range(500):
        folder = dice.choice([whole, sharded])
        file = folder / dice.choice([path.name for path in sorted(folder.iterdir())])
        content = file.read_bytes()
        file.write_bytes(dice.choice(CHANGES)(content, dice))
        try:
            config, weights, _ = read_model_folder(folder)
        except (DataError, ConfigError) as error:
            errors += 1
            assert str(folder) in str(error), number
            assert len(str(error)) < 1_000 and "found" in str(error), number
        else:
            assert config.n_layers == 2
            assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items()), number
        finally:
            file.write_bytes(content)
    assert errors > 350
    assert peak_memory_bytes() - before < 100 * 2**20


def test_a_damaged_config_of_the_other_family_loads_the_same_tensors_or_says_what_is_wrong(tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    sizes = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2}
    shared = {**sizes, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 8, "head_dim": 4}
    Qwen3ForCausalLM(Qwen3Config(**shared, use_sliding_window=True, max_window_layers=0)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text()) | {"rope_scaling": rope | {"original_max_position_embeddings": 4}}
    path.write_text(json.dumps(settings))
    content = path.read_bytes()
    _, expected, _ = read_model_folder(tmp_path)
    dice = random.Random(6)
    for number in range(300):
        path.write_bytes(dice.choice(CHANGES)(content, dice))
        try:
            _, weights, _ = read_model_folder(tmp_path)
        except (DataError, ConfigError) as error:
            assert str(path.parent) in str(error), number
        else:
            assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items()), number


def test_what_the_library_refuses_we_refuse(whole: Path, tmp_path: Path) -> None:
    content = (whole / WEIGHTS).read_bytes()
    (tmp_path / "config.json").write_bytes((whole / "config.json").read_bytes())
    dice = random.Random(5)
    for _ in range(150):
        (tmp_path / WEIGHTS).write_bytes(dice.choice(CHANGES)(content, dice))
        try:
            with safe_open(tmp_path / WEIGHTS, "pt") as file:
                list(file.keys())
        except Exception:
            with pytest.raises(DataError):
                read_model_folder(tmp_path)


# ---------------------------------------------------------------- files made to harm


def with_header(folder: Path, change: Callable[[dict[str, Any]], object], rest: bytes = b"") -> None:
    content = (folder / WEIGHTS).read_bytes()
    end = head_end(content)
    header = json.loads(content[8:end])
    change(header)
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + content[end:] + rest)


NORM = "transformer.ln_f.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h: h[NORM].update(dtype="F33"), "of dtype F33"),
        (lambda h: h[NORM].update(dtype="F4"), "of dtype F4"),
        (lambda h: h[NORM].update(shape=[2**62]), "18,446,744,073,709,551,616|for its shape"),
        (lambda h: h[NORM].update(shape=[1] * 1_000), "of shape"),
        (lambda h: h[NORM].update(shape=[-8]), "of shape"),
        (lambda h: h[NORM].update(data_offsets=[0, 2**40]), "two places in the"),
        (lambda h: h[NORM].update(data_offsets=[32, 0]), "two places in the"),
        (lambda h: h[NORM].update(data_offsets=h["transformer.ln_f.bias"]["data_offsets"]), "overlaps|leaves a gap"),
        (lambda h: h.update({"x\x1b[2J": {}}), r"x\\x1b\[2J"),
        (lambda h: h.pop(NORM), "leaves a gap|no byte without a tensor"),
        (lambda h: h[NORM].update(more=1), "dtype, shape and data_offsets"),
    ],
)
def test_a_header_that_lies_is_named(whole: Path, tmp_path: Path, change: Callable[..., object], said: str) -> None:
    for name in (WEIGHTS, "config.json"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    with_header(tmp_path, change)
    with pytest.raises(DataError, match=said):
        read_model_folder(tmp_path)


def test_bytes_behind_the_last_tensor_are_refused(whole: Path, tmp_path: Path) -> None:
    for name in (WEIGHTS, "config.json"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    with_header(tmp_path, lambda header: None, rest=b"more")
    with pytest.raises(DataError, match="no byte without a tensor"):
        read_model_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"model_type": "gpt2", "model_type": "gpt2"}', "the key model_type twice"),
        (b'{"a":' * 100_000, "nested without end"),
        (b'{"vocab_size": ' + b"9" * 5_000 + b"}", "cannot be read"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"{", r"config\.json, line 1: found a damaged file \(broken JSON"),
    ],
)
def test_json_made_to_harm_is_named(whole: Path, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / WEIGHTS).write_bytes((whole / WEIGHTS).read_bytes())
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_model_folder(tmp_path)


@pytest.mark.parametrize("place", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "model.bin", "..", 7])
def test_an_index_that_points_elsewhere_is_refused(sharded: Path, place: object) -> None:
    text = (sharded / INDEX).read_text()
    names = json.loads(text)
    names["weight_map"][NORM] = place
    (sharded / INDEX).write_text(json.dumps(names))
    with pytest.raises(DataError, match="a safetensors file beside the index"):
        read_model_folder(sharded)
    (sharded / INDEX).write_text(text)


def test_a_shard_that_is_missing_or_holds_other_tensors_is_named(sharded: Path) -> None:
    text = (sharded / INDEX).read_text()
    (sharded / INDEX).write_text(text.replace(NORM, "transformer.another"))
    with pytest.raises(DataError, match=r"tensor transformer\.(ln_f\.weight|another) .*in the index"):
        read_model_folder(sharded)
    (sharded / INDEX).write_text(text)
    (sharded / SHARDS[1]).rename(sharded / "away")
    with pytest.raises(DataError, match=rf"no file {SHARDS[1]}"):
        read_model_folder(sharded)
    (sharded / "away").rename(sharded / SHARDS[1])


def test_a_pipe_or_a_folder_in_the_place_of_a_file_is_no_file(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((whole / "config.json").read_bytes())
    (tmp_path / WEIGHTS).mkdir()
    os.mkfifo(tmp_path / INDEX)
    with pytest.raises(DataError, match=r"no model\.safetensors"):
        read_model_folder(tmp_path)
