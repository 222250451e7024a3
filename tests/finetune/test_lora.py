"""LoRA: small matrices beside frozen ones, saved as peft opens them, merged into a model like any other."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from pellucid.config import ModelConfig
from pellucid.finetune.classify import Classifier
from pellucid.finetune.lora import Int8Linear, Lora, LoraLinear, adapters, merge_adapters, save_adapter, train_part
from pellucid.model.gpt import GPT
from pellucid.model.importing import import_model
from pellucid.options import Import
from pellucid.runtime import ConfigError, DataError

LLAMA = ModelConfig("llama", vocab_size=50, context_length=32, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2)


def with_adapters(gpt: GPT, lora: Lora | None = None) -> GPT:
    """The model with adapters as if they had been trained."""
    train_part(gpt, gpt, "lora", lora)
    for layer in adapters(gpt).values():
        torch.nn.init.normal_(layer.b, std=0.1)
    return gpt.eval()


@pytest.fixture(params=["gpt2", "llama"])
def base(request: pytest.FixtureRequest, base_folder: Path, tmp_path: Path) -> Path:
    if request.param == "gpt2":
        return base_folder
    torch.manual_seed(0)
    GPT(LLAMA).save(tmp_path / "llama")
    return tmp_path / "llama"


@torch.no_grad()
def test_fresh_adapters_change_nothing_and_alone_are_trained(base: Path) -> None:
    gpt, ids = GPT.load(base), torch.randint(0, 40, (2, 9))
    before = gpt(ids)
    train_part(gpt, gpt, "lora")
    torch.testing.assert_close(gpt(ids), before)
    trained = [name for name, parameter in gpt.named_parameters() if parameter.requires_grad]
    assert trained and all(name.endswith((".a", ".b")) for name in trained)


@torch.no_grad()
def test_merged_is_the_same_model(base: Path) -> None:
    gpt, ids = with_adapters(GPT.load(base)), torch.randint(0, 40, (2, 9))
    before = gpt(ids)
    merge_adapters(gpt)
    assert not adapters(gpt)
    torch.testing.assert_close(gpt(ids), before, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("targets", [Lora().targets, ("attention.query", "attention.value")])
def test_peft_opens_the_adapter_and_gives_the_same_logits(base: Path, tmp_path: Path, targets: tuple[str, ...]) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    gpt, ids = with_adapters(GPT.load(base), Lora(rank=4, alpha=12, targets=targets)), torch.randint(0, 40, (2, 9))
    save_adapter(tmp_path / "adapter", gpt, str(base))
    theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter").eval()
    torch.testing.assert_close(gpt(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gpt(ids), theirs.merge_and_unload()(ids).logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_peft_opens_the_adapter_of_a_classifier(base_folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    gpt = with_adapters(GPT.load(base_folder))
    model = Classifier(gpt, ["a", "b", "c"]).eval()
    save_adapter(tmp_path / "adapter", gpt, str(base_folder), head=model.head.weight)
    whole = AutoModelForSequenceClassification.from_pretrained(base_folder, num_labels=3, pad_token_id=0)
    theirs = peft.PeftModel.from_pretrained(whole, tmp_path / "adapter").eval()
    ids = torch.randint(1, 40, (3, 9))
    expected = theirs(ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(model(ids, torch.full((3,), 9)), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("targets", [Lora().targets, ("attention.query", "attention.value")])
def test_an_adapters_folder_is_merged_on_request(base: Path, tmp_path: Path, targets: tuple[str, ...]) -> None:
    gpt, ids = with_adapters(GPT.load(base), Lora(rank=4, alpha=12, targets=targets)), torch.randint(0, 40, (2, 9))
    save_adapter(tmp_path / "adapter", gpt, str(base))
    import_model(Import(str(tmp_path / "adapter"), tmp_path / "merged"))
    torch.testing.assert_close(GPT.load(tmp_path / "merged")(ids), gpt(ids), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_adapter_that_peft_wrote_is_merged_as_peft_does(base: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    of_gpt2 = GPT.load(base).config.family == "gpt2"
    targets = ["c_attn", "c_proj"] if of_gpt2 else ["q_proj", "down_proj"]
    settings = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=targets, use_rslora=True, fan_in_fan_out=of_gpt2,
        rank_pattern={"mlp.c_proj": 2}, alpha_pattern={"down_proj": 9}, init_lora_weights=False,
    )  # fmt: skip
    torch.manual_seed(3)
    theirs = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings)
    theirs.save_pretrained(tmp_path / "adapter")
    ids = torch.randint(0, 40, (2, 9))
    expected = theirs.merge_and_unload()(ids).logits
    import_model(Import(str(tmp_path / "adapter"), tmp_path / "merged", base=str(base)))
    torch.testing.assert_close(GPT.load(tmp_path / "merged")(ids), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("peft_type", "LOHA", "peft_type 'LOHA'"), ("use_dora", True, "use_dora True"),
     ("lora_alpha", "x", "lora_alpha 'x'"), ("base_model_name_or_path", None, "no base_model_name_or_path"),
     ("alpha_pattern", {".*c_proj": 3}, r"alpha_pattern '\.\*c_proj'")],
)  # fmt: skip
def test_an_adapter_that_cannot_be_merged_is_refused(
    base_folder: Path, tmp_path: Path, key: str, value: object, said: str
) -> None:
    save_adapter(tmp_path / "adapter", with_adapters(GPT.load(base_folder)), str(base_folder))
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "alpha_pattern": {}, key: value}))
    with pytest.raises(DataError, match=said):
        import_model(Import(str(tmp_path / "adapter"), tmp_path / "merged"))
    assert not (tmp_path / "merged").exists()


def test_an_adapter_to_itself_is_refused(base_folder: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", with_adapters(GPT.load(base_folder)), str(tmp_path / "adapter"))
    with pytest.raises(DataError, match="which is one itself; expected one to a whole model"):
        import_model(Import(str(tmp_path / "adapter"), tmp_path / "merged"))


def test_an_adapter_of_another_model_or_damaged_is_refused(base: Path, tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", with_adapters(GPT.load(base)), str(base))
    torch.manual_seed(0)
    GPT(replace(LLAMA, d_model=16, d_ff=0, d_head=0)).save(tmp_path / "other")
    with pytest.raises(DataError, match=r"another model|has not"):
        import_model(Import(str(tmp_path / "adapter"), tmp_path / "merged", base=str(tmp_path / "other")))
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match="no tensors that can be read"):
        import_model(Import(str(tmp_path / "adapter"), tmp_path / "merged"))
    with pytest.raises(ConfigError, match="--base"):
        import_model(Import(str(base), tmp_path / "merged", base="gpt2"))


def test_a_frozen_matrix_in_int8_is_near_and_passes_the_gradient_on() -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(64, 48), torch.randn(5, 64, requires_grad=True)
    small = Int8Linear(layer)
    torch.testing.assert_close(small(x), layer(x), atol=0.02, rtol=0)
    torch.testing.assert_close(small(x), small.plain()(x), atol=1e-5, rtol=1e-5)
    (ours,) = torch.autograd.grad(small(x).square().sum(), x)
    (theirs,) = torch.autograd.grad(small.plain()(x).square().sum(), x)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    held = sum(buffer.numel() * buffer.element_size() for buffer in small.buffers())
    assert held < layer.weight.numel() * 4 / 2.5


@torch.no_grad()
def test_adapters_beside_int8_merge_into_what_they_computed(base_folder: Path) -> None:
    gpt, ids = with_adapters(GPT.load(base_folder), Lora(base="int8")), torch.randint(0, 250, (2, 9))
    merged = copy.deepcopy(gpt)
    merge_adapters(merged)
    torch.testing.assert_close(merged(ids), gpt(ids), atol=1e-4, rtol=1e-4)


def test_a_rank_larger_than_a_layer_is_cut_and_counts_the_same() -> None:
    layer = LoraLinear(torch.nn.Linear(4, 6), Lora(rank=16, alpha=32))
    assert layer.rank == 4
    assert layer.alpha / layer.rank == 2


@pytest.mark.parametrize(("given", "said"), [({"rank": 0}, "rank 0"), ({"targets": ("wte",)}, "'wte'")])
def test_impossible_adapters_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Lora(**given)  # type: ignore[arg-type]


def test_a_target_that_the_family_lacks_is_refused_with_those_there_are(base: Path) -> None:
    gpt = GPT.load(base)
    train_part(gpt, gpt, "lora")  # all targets are all that there are
    gpt = GPT.load(base)
    if gpt.config.family == "llama":
        train_part(gpt, gpt, "lora", Lora(targets=("feed_forward.gate",)))
        return
    with pytest.raises(ConfigError, match=r"'feed_forward.gate'; expected layers of .*feed_forward.expand"):
        train_part(gpt, gpt, "lora", Lora(targets=("attention.query", "feed_forward.gate")))
