"""Encoding that is stopped, or meets a full disk, damage and bad files: nothing half-made, nothing lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pellucid.runtime import DataError
from pellucid.text import encode
from pellucid.text.bpe import BPETokenizer
from pellucid.text.character import CharacterTokenizer
from pellucid.text.held_out import Shares
from pellucid.text.shards import Shards
from tests.conftest import Cli
from tests.text.shard_files import WORDS, encoded, files, read_back, some_text, some_texts, write_folder, write_lines


@pytest.fixture
def texts() -> list[str]:
    return some_texts()


@pytest.fixture
def folder(tmp_path: Path, texts: list[str]) -> Path:
    return write_folder(tmp_path / "texts", texts)


# ---------------------------------------------------------------- stopped, and going on

SMALLER_UNITS = (
    "import sys; import pellucid.text.encode as encode; encode.UNIT_BYTES = 1 << 19;"
    "from pellucid.cli import main; sys.argv[0] = 'pellucid'; main()"
)


@pytest.fixture(scope="module")
def much(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 8 MB of text, a tokenizer, and what encoding it gives in one go."""
    folder = tmp_path_factory.mktemp("much")
    chance = random.Random(8)
    write_lines(folder / "a.jsonl", [{"text": some_text(chance, 200)} for _ in range(5000)])
    CharacterTokenizer.train([" ".join(WORDS) + "0123456789"]).save(folder / "tokenizer")
    assert run_cli(folder, folder / "whole").returncode == 0
    return folder


def command(much: Path, out: Path, *more: object) -> list[str]:
    arguments = ["encode", much / "a.jsonl", "--tokenizer", much / "tokenizer", "--out", out, "--workers", 2, *more]
    return [sys.executable, "-c", SMALLER_UNITS, *map(str, arguments)]


def run_cli(much: Path, out: Path, *more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(much, out, *more), capture_output=True, text=True, timeout=120, check=False)


def stop_after_the_first_unit(much: Path, out: Path, how: signal.Signals) -> subprocess.CompletedProcess[str]:
    """Start an encode, stop it when a first unit is done, and check that it was stopped half-way."""
    process = subprocess.Popen(command(much, out), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    unfinished = out.with_name(f".{out.name}.unfinished")
    until = time.monotonic() + 60
    while not list(unfinished.glob("unit-*.json")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.002)
    process.send_signal(how)
    printed, said = process.communicate(timeout=60)
    assert not out.exists()
    assert 1 <= len(list(unfinished.glob("unit-*.json"))) < 15
    return subprocess.CompletedProcess(process.args, process.returncode, printed, said)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
@pytest.mark.parametrize(("how", "code"), [("SIGKILL", -9), ("SIGINT", 130)])
def test_a_stopped_encode_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, much: Path, how: str, code: int) -> None:
    out = tmp_path / "s"
    stopped = stop_after_the_first_unit(much, out, signal.Signals[how])
    assert stopped.returncode == code
    assert "Traceback" not in stopped.stderr
    unfinished = tmp_path / ".s.unfinished"
    (unfinished / "shards" / ".tokenizer.json.abc").write_text("half")  # as kill -9 may leave it
    (unfinished / "shards" / "train-00777.part").write_text("half")
    first = min(unfinished.glob("unit-*.json"))
    shard = unfinished / "shards" / f"train-{first.stem[5:]}.npy"
    made = shard.stat().st_mtime_ns
    done = run_cli(much, out)
    assert done.returncode == 0, done.stderr
    assert "parts were encoded before; going on from there" in done.stderr
    assert (out / shard.name).stat().st_mtime_ns == made
    assert files(out) == files(much / "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_what_was_damaged_meanwhile_is_encoded_anew(tmp_path: Path, much: Path) -> None:
    out = tmp_path / "s"
    stop_after_the_first_unit(much, out, signal.SIGKILL)
    for number, file in enumerate(sorted((tmp_path / ".s.unfinished" / "shards").glob("*.npy"))):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(bytes(content[: -number or None]))
    assert run_cli(much, out).returncode == 0
    assert files(out) == files(much / "whole")


@pytest.mark.parametrize("change", ["nothing", "the shares", "the tokenizer", "a file", "the units"])
def test_only_the_same_settings_and_files_go_on(
    tmp_path: Path, folder: Path, bpe: BPETokenizer, monkeypatch: pytest.MonkeyPatch, change: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    undisturbed = encode.encode_unit

    def stopped(unfinished: Path, work: encode.Work, number: int) -> Any:
        if number == 4:
            raise KeyboardInterrupt
        return undisturbed(unfinished, work, number)

    monkeypatch.setattr(encode, "encode_unit", stopped)
    with pytest.raises(KeyboardInterrupt):
        encoded([folder], bpe, tmp_path / "s", unit_bytes=6000)
    monkeypatch.setattr(encode, "encode_unit", undisturbed)
    (tmp_path / ".s.unfinished" / "shards" / "stray.npy").write_text("of nobody")
    capsys.readouterr()
    if change == "a file":
        os.utime(folder / "b.jsonl")
    tokenizer = BPETokenizer.train(["others"], 260) if change == "the tokenizer" else bpe
    shares = Shares(0.1, 0.1) if change == "the shares" else Shares()
    unit_bytes = 6300 if change == "the units" else 6000
    encoded([folder], tokenizer, tmp_path / "s", shares, unit_bytes=unit_bytes)
    assert ("parts were encoded before" in capsys.readouterr().err) == (change == "nothing")
    encoded([folder], tokenizer, tmp_path / "t", shares, unit_bytes=unit_bytes)
    assert files(tmp_path / "s") == files(tmp_path / "t")


@pytest.mark.parametrize("source", ["standard input", "a data set"])
def test_what_can_be_read_only_once_goes_on_where_it_was_when_it_is_given_again(
    source: str, folder: Path, tmp_path: Path, call: Cli, bpe: BPETokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == "a data set":
        pytest.importorskip("datasets", reason="needs the extra 'data'")
    undisturbed = encode.encode_unit
    monkeypatch.setattr(encode, "UNIT_BYTES", 2000)
    bpe.save(tmp_path / "tokenizer")
    content = "".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jsonl")))
    only = tmp_path / "set"
    only.mkdir()
    (only / "train.jsonl").write_text(content, encoding="utf-8")

    def run(text: str) -> subprocess.CompletedProcess[str]:
        what = ["-"] if source == "standard input" else ["--dataset", only]
        return call("encode", *what, "--tokenizer", tmp_path / "tokenizer", "--out", tmp_path / "s", stdin=text)

    def stopped(unfinished: Path, work: encode.Work, number: int) -> Any:
        if number == 4:
            raise KeyboardInterrupt
        return undisturbed(unfinished, work, number)

    monkeypatch.setattr(encode, "encode_unit", stopped)
    assert run(content).returncode == 130
    assert not (tmp_path / ".s.input").exists()
    monkeypatch.setattr(encode, "encode_unit", undisturbed)
    again = run(content)
    assert "parts were encoded before; going on from there" in again.stderr
    assert again.returncode == 0
    whole = encoded([only / "train.jsonl"], bpe, tmp_path / "whole", unit_bytes=2000)
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()
    assert read_back(Shards.open(tmp_path / "s")) == read_back(whole)


# ---------------------------------------------------------------- what goes wrong


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if mount is None or subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_is_one_message_and_what_was_done_is_kept(much: Path, small_disk: Path) -> None:
    out = small_disk / "s"
    failed = run_cli(much, out)
    assert failed.returncode == 2
    assert failed.stderr.count("the disk is full; free some space") == 1
    assert "Traceback" not in failed.stderr
    assert not out.exists()
    unfinished = small_disk / ".s.unfinished"
    assert list(unfinished.glob("unit-*.json"))
    assert not list(unfinished.rglob("*.part"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    done = run_cli(much, out)
    assert "parts were encoded before" in done.stderr
    assert files(out) == files(much / "whole")


def test_standard_input_that_fills_the_disk_is_one_message(much: Path, small_disk: Path) -> None:
    with (much / "a.jsonl").open("rb") as text:
        arguments = ["encode", "-", "--tokenizer", str(much / "tokenizer"), "--out", str(small_disk / "s")]
        code = [sys.executable, "-c", SMALLER_UNITS, *arguments]
        failed = subprocess.run(code, stdin=text, capture_output=True, text=True, timeout=120, check=False)
    assert failed.returncode == 2
    assert "cannot keep standard input there: No space left on device" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not list(small_disk.iterdir())


def test_a_flipped_bit_is_found_in_any_shard(tmp_path: Path, folder: Path, bpe: BPETokenizer) -> None:
    shards = encoded([folder], bpe, tmp_path / "s", unit_bytes=4000)
    for name in (*list(shards.hashes())[::5], "train-00002.offsets.npy"):
        path = tmp_path / "s" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 16]))
        with pytest.raises(DataError, match=f"{name}: found changed content"):
            Shards.open(tmp_path / "s")
        path.write_bytes(whole)
    Shards.open(tmp_path / "s")


def test_an_empty_file_among_many_is_a_message(
    tmp_path: Path, folder: Path, texts: list[str], bpe: BPETokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "c.txt").write_bytes(b"")
    (folder / "f.txt").write_text(" \n \n")
    found = read_back(encoded([folder], bpe, tmp_path / "s", unit_bytes=2000))
    assert sum(map(len, found.values())) == len(texts)
    assert "c.txt: empty, skipped." in capsys.readouterr().err


@pytest.mark.parametrize("change", ["grows", "vanishes", "is replaced"])
def test_a_file_that_changes_while_it_is_encoded_is_an_error(
    tmp_path: Path, folder: Path, bpe: BPETokenizer, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    undisturbed = encode.encode_unit
    path = folder / "b.jsonl"

    def disturbed(unfinished: Path, work: encode.Work, number: int) -> Any:
        if number == 3 and change == "grows":
            path.write_text(path.read_text() + '{"text": "new"}\n')
        elif number == 3 and change == "vanishes":
            path.unlink()
        elif number == 3:
            path.write_text(path.read_text().replace("fox", "fix"))
        return undisturbed(unfinished, work, number)

    monkeypatch.setattr(encode, "encode_unit", disturbed)
    with pytest.raises(DataError, match=r"b\.jsonl: (found a file that changed|cannot read: No such file)"):
        encoded([folder], bpe, tmp_path / "s", unit_bytes=2000)
    assert not (tmp_path / "s").exists()


def test_a_bad_line_ends_the_encode_by_its_name_and_the_good_units_are_kept(
    tmp_path: Path, folder: Path, bpe: BPETokenizer
) -> None:
    lines = (folder / "b.jsonl").read_text().splitlines()
    lines[50] = '{"text": 3}'
    (folder / "b.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"b\.jsonl, line 51: found"):
        encoded([folder], bpe, tmp_path / "s", unit_bytes=2000)
    assert not (tmp_path / "s").exists()


def test_what_stands_in_the_way_is_not_replaced(tmp_path: Path, folder: Path, bpe: BPETokenizer) -> None:
    with pytest.raises(DataError, match="something else there"):
        encoded([folder], bpe, folder)
    shards = encoded([folder], bpe, tmp_path / "s")
    again = encoded([folder / "b.jsonl"], bpe, tmp_path / "s")
    assert again.documents("train") < shards.documents("train")
    assert not list(tmp_path.glob(".s*"))


def test_shards_of_another_tokenizer_are_replaced_and_that_is_said(
    tmp_path: Path, folder: Path, bpe: BPETokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    for tokenizer, said in ((bpe, False), (bpe, False), (BPETokenizer.train(["a b"], 256), True)):
        encoded([folder], tokenizer, tmp_path / "s").require_tokenizer(tokenizer)
        assert ("s: the shards there are of another tokenizer;" in capsys.readouterr().err) == said
