"""OpenAI's TensorFlow folders: bit by bit what TensorFlow wrote, and a damaged one is named."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pellucid.model.formats.gpt2 import to_theirs
from pellucid.model.formats.tensorflow import checksum, find_index, read_tensorflow_folder, theirs_of
from pellucid.runtime import DataError

DATA = Path(__file__).parent / "data"
TENSORFLOW = os.environ.get("PELLUCID_TENSORFLOW_PYTHON", sys.executable)  # an interpreter that may import TensorFlow
NUMBERS = "model.ckpt.data-00000-of-00001"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(DATA / "tensorflow", tmp_path / "gpt2")
    return tmp_path / "gpt2"


def assert_bit_equal(folder: Path) -> None:
    config, weights = read_tensorflow_folder(folder)
    theirs = to_theirs(weights, config)
    expected = np.load(folder / "expected.npz", allow_pickle=False)
    assert len(theirs) == len(expected.files)
    for name in expected.files:
        values = torch.from_numpy(expected[name])
        assert torch.equal(theirs[f"transformer.{theirs_of(name)}"], values[0] if values.dim() == 3 else values), name


def test_a_checkpoint_that_tensorflow_wrote_is_read_bit_by_bit(folder: Path) -> None:
    assert_bit_equal(folder)


@pytest.mark.nightly
@pytest.mark.parametrize("sizes", [(40, 16, 8, 2, 3), (50257, 1024, 768, 12, 12)])
def test_a_checkpoint_that_tensorflow_writes_now_is_read_bit_by_bit(sizes: tuple[int, ...], tmp_path: Path) -> None:
    if subprocess.run([TENSORFLOW, "-c", "import tensorflow"], capture_output=True).returncode:
        pytest.skip("no TensorFlow; PELLUCID_TENSORFLOW_PYTHON may name an interpreter that has it")
    command = [TENSORFLOW, str(DATA / "write_tensorflow.py"), str(tmp_path), *map(str, sizes)]
    subprocess.run(command, check=True, capture_output=True)
    assert_bit_equal(tmp_path)


def test_the_checksum_is_crc32c() -> None:
    crc = 0xE3069283  # of 123456789, as RFC 3720's tables have it
    assert checksum(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def drop(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def compress_a_block(folder: Path) -> None:
    content = bytearray((folder / "model.ckpt.index").read_bytes())
    place = len(content) - 48 - 5  # of the last block: the kind, then the checksum
    content[place] = 1
    start = place
    while checksum(bytes(content[start:place]) + b"\0") != struct.unpack_from("<I", content, place + 1)[0]:
        start -= 1
    struct.pack_into("<I", content, place + 1, checksum(bytes(content[start : place + 1])))
    (folder / "model.ckpt.index").write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (drop("hparams.json"), r"hparams\.json: found no file; expected the model's sizes"),
        (put("hparams.json", b'{"n_vocab": 257}'), "other settings"),
        (put("hparams.json", b'{"n_vocab":257,"n_ctx":16,"n_embd":4,"n_head":2,"n_layer":3}'), r"no tensor h\.2\."),
        (put("hparams.json", b'{"n_vocab":257,"n_ctx":16,"n_embd":4,"n_head":2,"n_layer":99999999999}'), "at most"),
        (put("hparams.json", b'{"n_vocab":257,"n_ctx":16,"n_embd":4,"n_head":3,"n_layer":2}'), "equal size"),
        (put("hparams.json", b'{"n_vocab":258,"n_ctx":16,"n_embd":4,"n_head":2,"n_layer":2}'), r"wte\.weight of shape"),
        (drop("model.ckpt.index"), r"0 files \*\.index"),
        (drop(NUMBERS), f"no file {NUMBERS}"),
        (put("model.ckpt.index", b""), "no table's end"),
        (put("model.ckpt.index", b"x" * 500), "no table's end"),
        (put(NUMBERS, b"x" * 10), "all of it in the file"),
        (compress_a_block, "a compressed block"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(folder: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(folder)
    with pytest.raises(DataError, match=said):
        read_tensorflow_folder(folder)


def test_the_file_checkpoint_says_which_of_several_is_meant(folder: Path) -> None:
    (folder / "older.ckpt.index").write_bytes(b"")
    assert find_index(folder).name == "model.ckpt.index"
    (folder / "checkpoint").unlink()
    with pytest.raises(DataError, match=r"2 files \*\.index"):
        find_index(folder)


@pytest.mark.parametrize("name", ["model.ckpt.index", NUMBERS])
def test_each_flipped_bit_and_each_cut_is_found(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    dice = random.Random(0)
    unseen = 0
    for _ in range(150):
        place = dice.randrange(len(whole))
        flipped = whole[:place] + bytes([whole[place] ^ 1 << dice.randrange(8)]) + whole[place + 1 :]
        (folder / name).write_bytes(dice.choice([flipped, whole[:place]]))
        try:
            read_tensorflow_folder(folder)
        except DataError as error:
            assert str(folder) in str(error)
        else:  # the only bytes without a checksum that nobody reads: the unused block, and the footer's padding
            unseen += 1
            assert_bit_equal(folder)
    assert unseen < (20 if name.endswith("index") else 1)
