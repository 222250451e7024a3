"""A folder of ours is one of transformers', and theirs is ours; a broken one is named, piece by piece."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from pellucid.config import ModelConfig
from pellucid.model.formats.gpt2 import PREFIX, to_theirs
from pellucid.model.gpt import GPT
from pellucid.runtime import DataError

CONFIG = ModelConfig(vocab_size=53, context_length=24, d_model=32, n_layers=3, n_heads=4, d_ff=48)


@pytest.fixture
def ours() -> GPT:
    torch.manual_seed(0)
    model = GPT(CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture
def folder(ours: GPT, tmp_path: Path) -> Path:
    ours.save(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def theirs() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=53, n_positions=24, n_embd=32, n_layer=3, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    model = GPT2LMHeadModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def assert_same_model(ours: GPT, theirs: GPT2LMHeadModel) -> None:
    """Same logits, same loss, and the same gradient of every parameter."""
    ids = torch.randint(0, 53, (3, 24), generator=torch.Generator().manual_seed(1))
    our_logits, their_logits = ours(ids), theirs(ids).logits
    torch.testing.assert_close(our_logits, their_logits, atol=1e-4, rtol=1e-5)
    for logits in (our_logits, their_logits):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    gradients = to_theirs({name: parameter.grad for name, parameter in ours.named_parameters()}, ours.config)
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, expected[name], atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_transformers_opens_our_folder_and_computes_the_same_logits_and_gradients(ours: GPT, folder: Path) -> None:
    theirs, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert_same_model(ours, theirs.eval())


def test_our_model_opens_transformers_folder_and_computes_the_same(theirs: GPT2LMHeadModel, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    assert_same_model(GPT.load(tmp_path), theirs)


def test_a_model_saved_and_loaded_has_the_same_bits(ours: GPT, folder: Path) -> None:
    again = GPT.load(folder)
    assert again.config == ours.config
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in ours.state_dict().items())


def test_weights_in_bfloat16_and_names_without_a_prefix_are_read(ours: GPT, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix(PREFIX): tensor.bfloat16() for name, tensor in tensors.items()}
    bare["h.0.attn.bias"] = torch.ones(1, 1, 24, 24)  # the mask that old GPT-2 files carry
    bare["lm_head.weight"] = bare["wte.weight"].clone()
    save_file(bare, folder / "model.safetensors")
    again = GPT.load(folder)
    torch.testing.assert_close(again.token_embedding.weight, ours.token_embedding.weight, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_each_precision_comes_out_as_the_same_numbers_in_float32(ours: GPT, folder: Path, kind: torch.dtype) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor.to(kind) for name, tensor in tensors.items()}, folder / "model.safetensors")
    again = GPT.load(folder).state_dict()
    for name, tensor in ours.state_dict().items():
        assert again[name].dtype == torch.float32
        assert torch.equal(again[name], tensor.to(kind).float()), name


def test_shards_with_an_index_written_by_transformers_are_the_same_model(
    theirs: GPT2LMHeadModel, tmp_path: Path
) -> None:
    theirs.save_pretrained(tmp_path, max_shard_size="30kB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_same_model(GPT.load(tmp_path), theirs)


def test_a_tensor_larger_than_what_is_read_at_a_time_is_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=3_001, context_length=8, d_model=640, n_layers=1, n_heads=4))
    model.save(tmp_path)
    again = GPT.load(tmp_path).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def test_an_output_layer_of_its_own_is_refused_because_we_would_compute_something_else(ours: GPT, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.randn(53, 32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(DataError, match=r"lm_head\.weight"):
        GPT.load(folder)


BIAS = "transformer.h.1.attn.c_attn.bias"


def without(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[BIAS]


def with_another(tensors: dict[str, torch.Tensor]) -> None:
    tensors["transformer.h.3.ln_1.weight"] = torch.ones(32)


def of_another_shape(tensors: dict[str, torch.Tensor]) -> None:
    tensors[BIAS] = torch.ones(95)


def with_a_nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors[BIAS][3] = float("nan")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without, r"no tensor h\.1\.attn\.c_attn\.bias"),
        (with_another, r"unknown tensor h\.3\.ln_1\.weight"),
        (of_another_shape, r"h\.1\.attn\.c_attn\.bias of shape \(95,\); expected shape \(96,\)"),
        (with_a_nan, r"NaN or infinity in h\.1\.attn\.c_attn\.bias"),
    ],
)
def test_a_tensor_that_is_wrong_is_named(
    folder: Path, spoil: Callable[[dict[str, torch.Tensor]], None], said: str
) -> None:
    tensors = load_file(folder / "model.safetensors")
    spoil(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(DataError, match=said) as error:
        GPT.load(folder)
    assert str(folder / "model.safetensors") in str(error.value)


@pytest.mark.parametrize("kept", [0, 4, 100, 5000])
def test_a_file_that_was_cut_short_is_named_and_not_half_read(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"model\.safetensors: found a damaged file"):
        GPT.load(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt", "pytorch_model.bin.index.json"])
def test_pickled_weights_are_refused_and_it_is_said_why_and_what_to_do(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(DataError, match=rf"{name} is pickled.*could run any program.*save_pretrained"):
        GPT.load(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "bert"}, "model_type 'bert'"),
        ({"model_type": ["gpt2"]}, "model_type"),
        ({"layer_norm_epsilon": "small"}, "norm_eps 'small'"),
        ({"layer_norm_epsilon": float("nan")}, "norm_eps nan"),
        ({"n_layer": 10**15}, "n_layer 1000000000000000; expected at most"),
        ({"activation_function": "relu"}, "activation_function 'relu'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
        ({"scale_attn_weights": False}, "scale_attn_weights False"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings False"),
        ({"n_head": 5}, "heads of equal size"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"vocab_size": 54}, "wte.weight of shape"),
    ],
)
def test_a_config_that_means_another_model_is_refused_by_name(
    folder: Path, change: dict[str, object], said: str
) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | change))
    with pytest.raises(DataError, match=said):
        GPT.load(folder)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"model_type": "gpt2"}'])
def test_a_broken_config_is_named(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(DataError, match=r"config\.json"):
        GPT.load(folder)


def test_a_folder_that_is_none_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder; expected a run folder.*pellucid quickstart"):
        GPT.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="found a file"):
        GPT.load(tmp_path / "file")
    with pytest.raises(DataError, match=r"no config\.json"):
        GPT.load(tmp_path)
