"""A model taken out as GGUF: read again and compared, by llama.cpp too, and refused where GGUF cannot say it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pellucid.assistant.export import commands, llama_cpp_check
from pellucid.assistant.export.gguf_check import check_gguf, read_gguf, tokenizer_in
from pellucid.assistant.export.gguf_file import check_tokenizer, metadata
from pellucid.assistant.export.gguf_names import interleave, part
from pellucid.assistant.export.llama_cpp_check import TEXTS, VARIABLE, llama_cpp_python
from pellucid.config import ModelConfig, RopeScaling
from pellucid.finetune.classify import Classifier
from pellucid.finetune.conversation import CHAT_TEMPLATE, ensure_role_tokens
from pellucid.model.formats.folder import read_model_folder
from pellucid.model.gpt import GPT
from pellucid.options import Export
from pellucid.runtime import ConfigError, DataError, PellucidError
from pellucid.text.bpe import BPETokenizer
from pellucid.text.character import CharacterTokenizer
from pellucid.text.tokenizer import Tokenizer

WORDS = "Anna gives the red lamp to Ben. It's what we'll see: the blue fox has 12 lamps, and Ben has none!\n" * 3
GPT2 = ModelConfig(vocab_size=330, context_length=48, d_model=64, n_layers=2, n_heads=4)
LLAMA = replace(GPT2, family="llama", n_kv_heads=2, d_ff=96, positions="", norm_eps=1e-6)
SCALING = RopeScaling(factor=4.0, original_context_length=16)
MODELS = {
    "gpt2": GPT2,
    "gpt2 sinusoidal": replace(GPT2, positions="sinusoidal"),
    "llama": LLAMA,
    "llama scaled": replace(LLAMA, rope_theta=500000.0, rope_scaling=SCALING),
    "mistral": replace(LLAMA, tied=False, window=9, d_head=32),
    "qwen3": replace(LLAMA, query_key_norm=True, d_head=32),
}
ARCHITECTURES = {"gpt2 sinusoidal": "gpt2", "llama scaled": "llama", "mistral": "llama"}

Make = Callable[..., Path]


@pytest.fixture
def no_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without llama.cpp."""
    monkeypatch.setattr(llama_cpp_check, "llama_cpp_python", lambda: None)


def tokenizer_of(pattern: str = "gpt2") -> BPETokenizer:
    tokenizer = BPETokenizer.train([WORDS], vocab_size=300, pattern=pattern)
    ensure_role_tokens(tokenizer)
    return tokenizer


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A run folder of a model with lively weights, whose embedding has room for more tokens than there are."""

    def run(config: ModelConfig, pattern: str = "gpt2") -> Path:
        folder = tmp_path_factory.mktemp("run")
        torch.manual_seed(0)
        model = GPT(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(mean=1.0 if "norm.weight" in name else 0.0, std=0.2)
        model.save(folder)
        tokenizer_of(pattern).save(folder)
        return folder

    return run


def test_the_heads_are_interleaved_as_llama_cpp_converts_them_and_come_back() -> None:
    weights = torch.arange(24.0 * 5).view(24, 5)
    expected = weights.numpy().reshape(3, 2, 4, 5).swapaxes(1, 2).reshape(24, 5)  # convert_hf_to_gguf's words
    assert np.array_equal(interleave(weights, 3).numpy(), expected)
    assert torch.equal(part(interleave(weights, 3), 3), weights)


@pytest.mark.usefixtures("no_llama_cpp")
@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_each_kind_becomes_a_gguf_file(make: Make, tmp_path: Path, name: str) -> None:
    result, text = commands.export(Export(make(MODELS[name]), to="gguf", out=tmp_path / "model.gguf"))
    reader = read_gguf(tmp_path / "model.gguf")
    architecture = ARCHITECTURES.get(name, name)
    assert reader.fields["general.architecture"].contents() == architecture
    assert result["tensors_compared"] == len(reader.tensors)
    assert reader.fields[f"{architecture}.context_length"].contents() == (9 if name == "mistral" else 48)
    assert ("rope_freqs.weight" in {tensor.name for tensor in reader.tensors}) == (name == "llama scaled")
    assert result["llama_cpp"] is None and "Not compared with llama.cpp" in text


@pytest.mark.usefixtures("no_llama_cpp")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_for_matrices_and_says_what_it_cost(make: Make, tmp_path: Path, dtype: str) -> None:
    options = Export(make(GPT2), to="gguf", out=tmp_path / "model.gguf", dtype=dtype)  # type: ignore[arg-type]
    result, _ = commands.export(options)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in read_gguf(options.out).tensors}
    assert kinds["blk.0.attn_qkv.weight"] == {"float16": "F16", "bfloat16": "BF16"}[dtype]
    assert kinds["blk.0.attn_qkv.bias"] == kinds["position_embd.weight"] == kinds["output_norm.weight"] == "F32"
    assert 0 < result["largest_rounding"] < {"float16": 1e-3, "bfloat16": 1e-2}[dtype]


@pytest.mark.usefixtures("no_llama_cpp")
@pytest.mark.parametrize("pattern", ["gpt2", "cl100k"])
def test_a_tokenizer_built_from_the_file_alone_gives_the_same_ids(make: Make, tmp_path: Path, pattern: str) -> None:
    run, out = make(LLAMA, pattern), tmp_path / "model.gguf"
    commands.export(Export(run, to="gguf", out=out))
    ours, reader = Tokenizer.load(run), read_gguf(out)
    rebuilt = tokenizer_in(reader, out)
    for text in (*TEXTS, WORDS, "".join(map(chr, range(32, 700)))):
        assert rebuilt.encode(text) == ours.encode(text)
        assert rebuilt.encode(text, "all") == ours.encode(text, "all")
    fields = {key.removeprefix("tokenizer."): field.contents() for key, field in reader.fields.items()}
    assert fields["chat_template"] == CHAT_TEMPLATE
    assert fields["ggml.pre"] == {"gpt2": "gpt-2", "cl100k": "llama-bpe"}[pattern]
    assert fields["ggml.eos_token_id"] == ours.end_of_text and fields["ggml.add_bos_token"] is False
    assert fields["ggml.tokens"][ours.vocab_size :] == [f"[PAD{i}]" for i in range(ours.vocab_size, 330)]
    assert set(fields["ggml.token_type"][ours.vocab_size :]) == {5}


def test_damage_anywhere_in_the_file_is_found(make: Make, tmp_path: Path, no_llama_cpp: None) -> None:
    run, out = make(LLAMA), tmp_path / "model.gguf"
    commands.export(Export(run, to="gguf", out=out))
    config, weights, settings = read_model_folder(run)
    tokenizer = check_tokenizer(Tokenizer.load(run), config, run)
    said = metadata(config, tokenizer, settings, run.name, torch.float32)

    def check() -> tuple[int, float]:
        return check_gguf(out, config, weights, tokenizer, said, torch.float32, lambda _: None)

    whole = out.read_bytes()
    assert check()[0] == 20
    reader = read_gguf(out)
    places = {tensor.name: tensor.data_offset for tensor in reader.tensors}
    starts = {key: whole.index(key.encode()) + len(key) for key in said}
    damages = {
        places["blk.1.attn_k.weight"] + 21: "blk.1.attn_k.weight that differs by up to",
        places["output_norm.weight"] + 2: "output_norm.weight that differs by up to",
        starts["general.architecture"] + 4 + 8: "another general.architecture",
        starts["llama.rope.freq_base"] + 6: "another llama.rope.freq_base",
        starts["tokenizer.ggml.tokens"] + 4 + 4 + 8 + 8: "another tokenizer.ggml.tokens",
        starts["tokenizer.ggml.merges"] + 4 + 4 + 8 + 8: "another tokenizer.ggml.merges",
        whole.index(b"blk.0.ffn_up") + 6: "the odd tensor",
        whole.index(b"llama.block_count"): "key llama.block_count",
        1: "gguf cannot read",
    }
    for place, message in damages.items():
        out.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DataError, match=message):
            check()
    tensors = [range(tensor.data_offset, tensor.data_offset + tensor.n_bytes) for tensor in reader.tensors]
    for place in random.Random(0).sample(range(len(whole)), 60):
        out.write_bytes(whole[:place] + bytes([whole[place] ^ 129]) + whole[place + 1 :])
        if place < min(places.values()) - 32 or any(place in room for room in tensors):  # the rest is padding
            with pytest.raises(DataError):
                check()
    for length in (10, 1000, len(whole) - 64):
        out.write_bytes(whole[:length])
        with pytest.raises(DataError):
            check()


@pytest.mark.usefixtures("no_llama_cpp")
def test_a_failed_comparison_leaves_no_file_and_the_old_one(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pellucid.assistant.export import gguf_file

    out = tmp_path / "model.gguf"
    out.write_text("before")
    monkeypatch.setattr(gguf_file, "interleave", lambda tensor, heads: tensor + 0.5)
    with pytest.raises(DataError, match=r"blk\.0\.attn_q\.weight that differs by up to"):
        commands.export(Export(make(LLAMA), to="gguf", out=out))
    assert out.read_text() == "before" and list(tmp_path.iterdir()) == [out]


@pytest.mark.usefixtures("no_llama_cpp")
def test_what_gguf_cannot_say_is_refused_with_what_to_do(make: Make, tmp_path: Path) -> None:
    def refused(run: Path, message: str, **options: Any) -> None:
        with pytest.raises((DataError, ConfigError), match=message):
            commands.export(Export(run, to="gguf", out=tmp_path / "model.gguf", **options))
        assert not list(tmp_path.iterdir())

    run = make(GPT2)
    CharacterTokenizer.train([WORDS]).save(run)
    refused(run, "found a char tokenizer; expected byte-level BPE.* --to onnx")
    BPETokenizer.train([WORDS], 300, pattern=r"\S+|\s+").save(run)
    refused(run, "text split by .* as llama.cpp knows")
    BPETokenizer.train([WORDS], 300, special_tokens=[f"<|{i}|>" for i in range(40)]).save(run)
    refused(run, "expected at most 330, which the model knows")
    refused(make(replace(LLAMA, query_key_norm=True, rope_scaling=SCALING)), "query-key norm with rope scaling")
    refused(tmp_path / "nothing", "found no such folder")

    run = make(GPT2)
    Classifier(GPT.load(run), ["spam", "no spam"]).save(run, Tokenizer.load(run))
    refused(run, "found a classifier; expected a language model")

    run = make(GPT2)
    model = GPT.load(run)
    model.token_embedding.weight.data[3, 5] = 1e5
    model.save(run)
    refused(run, "100000 in token_embd.weight; expected at most 65504.*bfloat16", dtype="float16")


def test_a_missing_library_and_a_wrong_place_are_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "note.txt"
    note.write_text("mine")
    for out in (tmp_path, note):
        with pytest.raises(ConfigError, match="expected a new file, or an earlier export"):
            commands.export(Export(tmp_path, to="gguf", out=out))
    monkeypatch.setattr(commands.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PellucidError, match=r"no library gguf; .*pip install 'pellucid\[export\]'"):
        commands.export(Export(tmp_path, to="gguf", out=tmp_path / "model.gguf"))


def test_the_command_line_prints_one_object(call: Any, make: Make, tmp_path: Path, no_llama_cpp: None) -> None:
    done = call("export", make(GPT2), "--to", "gguf", "--out", tmp_path / "model.gguf", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["format"] == "gguf" and result["bytes"] == (tmp_path / "model.gguf").stat().st_size
    done = call("export", tmp_path / "no", "--to", "gguf", "--out", tmp_path / "model.gguf")
    assert done.returncode == 2 and "no such folder" in done.stderr


needs_llama_cpp = pytest.mark.skipif(
    llama_cpp_python() is None, reason=f"needs llama-cpp-python here, or {VARIABLE} naming a Python that has it"
)


@needs_llama_cpp
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_gives_the_same_ids_and_logits(make: Make, tmp_path: Path, name: str) -> None:
    pattern = "cl100k" if name == "qwen3" else "gpt2"
    result, text = commands.export(Export(make(MODELS[name], pattern), to="gguf", out=tmp_path / "model.gguf"))
    agreement = result["llama_cpp"]
    limit = 2e-3 if name.startswith("gpt2") else 2e-5  # llama.cpp's GELU is a table in float16
    assert agreement["largest_difference"] <= limit * agreement["largest_logit"]
    assert "llama.cpp gives the same ids for 6 texts" in text


@needs_llama_cpp
@pytest.mark.slow
def test_heads_in_another_order_are_found_by_llama_cpp(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pellucid.assistant.export import gguf_check, gguf_file

    monkeypatch.setattr(gguf_file, "interleave", lambda tensor, heads: tensor)
    monkeypatch.setattr(gguf_check, "part", lambda tensor, heads: tensor)
    with pytest.raises(DataError, match=r"logits by llama\.cpp that differ by up to"):
        commands.export(Export(make(LLAMA), to="gguf", out=tmp_path / "model.gguf"))
    assert not list(tmp_path.iterdir())


def test_a_python_without_llama_cpp_is_an_error_that_says_so(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "python"))
    with pytest.raises(ConfigError, match=f"no answer .*Let {VARIABLE} name a Python"):
        commands.export(Export(make(GPT2), to="gguf", out=tmp_path / "model.gguf"))
    assert not list(tmp_path.iterdir())
