"""A model taken out as ONNX: ONNX Runtime gives the same logits for any batch and length, and a wrong file is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pellucid.assistant.export import commands, onnx_file
from pellucid.assistant.export.onnx_file import check_onnx, load
from pellucid.config import ModelConfig, RopeScaling
from pellucid.finetune.classify import Classifier
from pellucid.model.gpt import GPT
from pellucid.options import Export
from pellucid.runtime import ConfigError, DataError
from pellucid.text.bpe import BPETokenizer

GPT2 = ModelConfig(vocab_size=257, context_length=40, d_model=32, n_layers=2, n_heads=4)
LLAMA = replace(GPT2, family="llama", n_kv_heads=2, d_ff=48, positions="", norm_eps=1e-6)
SCALING = RopeScaling(factor=4.0, original_context_length=16)
MODELS = {
    "gpt2": GPT2,
    "llama scaled, with a window": replace(LLAMA, tied=False, window=7, rope_theta=5e5, rope_scaling=SCALING),
    "qwen3": replace(LLAMA, query_key_norm=True, d_head=16),
}

Make = Callable[[ModelConfig], Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A run folder of a model with lively weights."""

    def run(config: ModelConfig) -> Path:
        folder = tmp_path_factory.mktemp("run")
        torch.manual_seed(0)
        model = GPT(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(mean=1.0 if "norm.weight" in name else 0.0, std=0.2)
        model.save(folder, eos_token_id=256)
        return folder

    return run


@pytest.fixture(scope="module")
def exported(make: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A run, its ONNX file, and what export said."""
    run, out = make(GPT2), tmp_path_factory.mktemp("out") / "model.onnx"
    result, _ = commands.export(Export(run, to="onnx", out=out))
    return run, out, result


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name != "gpt2"])
def test_onnx_runtime_gives_the_same_logits_for_each_kind_of_model(make: Make, tmp_path: Path, name: str) -> None:
    result, text = commands.export(Export(make(MODELS[name]), to="onnx", out=tmp_path / "model.onnx"))
    assert result["onnxruntime"]["largest_difference"] <= 1e-4 and result["onnxruntime"]["largest_logit"] > 1
    assert "Opened with ONNX Runtime: over 6 batches" in text


@pytest.mark.slow
def test_any_batch_and_length_up_to_the_context_can_be_asked(exported: tuple[Path, Path, dict[str, Any]]) -> None:
    import onnxruntime

    run, out, _ = exported
    session, model = onnxruntime.InferenceSession(str(out)), GPT.load(run)
    for batch, length in ((1, 1), (4, 3), (1, 40), (7, 39)):
        ids = torch.randint(257, (batch, length))
        with torch.no_grad():
            ours = model(ids)
        (theirs,) = session.run(None, {"ids": ids.numpy()})
        assert float((torch.from_numpy(theirs) - ours).abs().max()) <= 1e-4


@pytest.mark.slow
def test_a_file_of_other_weights_or_a_damaged_one_is_found(
    exported: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    run, out, result = exported
    model, said = load(run, {"eos_token_id": 256}, is_classifier=False)
    assert check_onnx(out, model, said)._asdict() == result["onnxruntime"]
    with pytest.raises(DataError, match="found other metadata"):
        check_onnx(out, model, {**said, "eos_token_id": "255"})
    with torch.no_grad():
        model.get_parameter("blocks.1.attention.key.weight")[0] += 0.01
    with pytest.raises(DataError, match=r"logits for \d+ × \d+ ids that differ by up to"):
        check_onnx(out, model, said)
    whole = out.read_bytes()
    for content in (whole[:1000], b"", b"no model"):
        (tmp_path / "damaged.onnx").write_bytes(content)
        with pytest.raises(DataError):
            check_onnx(tmp_path / "damaged.onnx", model, said)


@pytest.mark.slow
def test_the_file_tells_its_context_and_nothing_of_this_machine(exported: tuple[Path, Path, dict[str, Any]]) -> None:
    import onnxruntime

    run, out, _ = exported
    notes = onnxruntime.InferenceSession(str(out)).get_modelmeta().custom_metadata_map
    assert notes == {"pellucid.family": "gpt2", "pellucid.context_length": "40", "pellucid.eos_token_id": "256"}
    content = out.read_bytes()
    assert not any(str(place).encode() in content for place in (run, Path(onnx_file.__file__).parents[3], Path.home()))


@pytest.mark.slow
def test_a_classifier_gives_logits_by_class_whatever_stands_behind_the_text(make: Make, tmp_path: Path) -> None:
    import onnxruntime

    run, out = tmp_path / "run", tmp_path / "model.onnx"
    tokenizer = BPETokenizer.train(["spam"], vocab_size=256, special_tokens=["<|endoftext|>"])
    Classifier(GPT.load(make(GPT2)), ["spam", "no spam", "unsure"]).save(run, tokenizer)
    commands.export(Export(run, to="onnx", out=out))
    session = onnxruntime.InferenceSession(str(out))
    assert session.get_modelmeta().custom_metadata_map["pellucid.labels"] == "spam\nno spam\nunsure"
    ids, lengths = torch.randint(256, (3, 9)), torch.tensor([9, 4, 1])
    with torch.no_grad():
        ours = Classifier.load(run)(ids, lengths)
    (theirs,) = session.run(None, {"ids": ids.numpy(), "lengths": lengths.numpy()})
    assert torch.allclose(torch.from_numpy(theirs), ours, atol=1e-5)


@pytest.mark.slow
def test_a_failed_comparison_leaves_no_file_and_stdout_is_left_to_the_result(
    call: Any, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = make(GPT2), tmp_path / "model.onnx"
    done = call("export", run, "--to", "onnx", "--out", out, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["onnxruntime"]["batches"] == 6, done.stderr
    before = out.read_bytes()
    monkeypatch.setattr(onnx_file, "LARGEST_DIFFERENCE", 0.0)
    monkeypatch.setattr(onnx_file, "RELATIVE", 0.0)
    done = call("export", run, "--to", "onnx", "--out", out)
    assert done.returncode == 2 and "differ by up to" in done.stderr
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]


def test_half_precision_a_wrong_folder_and_more_than_one_file_holds_are_refused(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(kind: type[Exception], message: str, run: Path, **options: Any) -> None:
        with pytest.raises(kind, match=message):
            commands.export(Export(run, to="onnx", out=tmp_path / "model.onnx", **options))
        assert not list(tmp_path.iterdir())

    refused(ConfigError, "found float16; expected float32, with --to onnx", make(GPT2), dtype="float16")
    refused(DataError, "found no such folder", tmp_path / "nothing")
    short = ModelConfig(vocab_size=20, context_length=1, d_model=8, n_layers=1, n_heads=1)
    refused(DataError, "found a context of 1 token; expected 2 or more", make(short))
    monkeypatch.setattr(onnx_file, "MOST_BYTES", 1000)
    refused(DataError, "expected at most 2 GB.*--to gguf", make(GPT2))
