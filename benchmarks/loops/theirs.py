"""The loop of chapter 7 as `llms-from-scratch` has it, settings and all: `theirs.py FOLDER DATA` prints JSON.

Its own model, data set, collate function and training function; only the order of the records is given, and the random
weights, which are loaded as the package loads GPT-2's.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import tiktoken
import torch
from llms_from_scratch.ch04 import GPTModel
from llms_from_scratch.ch05 import load_weights_into_gpt, train_model_simple
from llms_from_scratch.ch07 import InstructionDataset, custom_collate_fn, format_input
from safetensors.torch import load_file
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


def main() -> None:
    """Train, time, and judge on the val split."""
    folder, data = Path(sys.argv[1]), Path(sys.argv[2])
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    ranks = data_gym_to_mergeable_bpe_ranks(str(data / "gpt2" / "vocab.bpe"), str(data / "gpt2" / "encoder.json"))
    encoding = tiktoken.Encoding(
        "gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )
    torch.manual_seed(123)
    shape = {"vocab_size": 50257, "context_length": 1024, "drop_rate": 0.0, "qkv_bias": True, "emb_dim": 768,
             "n_layers": plan["layers"], "n_heads": 12}  # fmt: skip
    model = GPTModel(shape)
    load_weights_into_gpt(model, released(load_file(folder / "base" / "model.safetensors"), plan["layers"]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.00005, weight_decay=0.1)

    def collate(batch: list[list[int]]) -> Any:
        return custom_collate_fn(batch, allowed_max_length=1024, device="cpu")

    train = InstructionDataset(plan["train"], encoding)
    batches = plan["batches"][: plan["steps"]]
    loader = DataLoader(train, batch_sampler=batches, collate_fn=collate)
    val = DataLoader(InstructionDataset(plan["val"], encoding), batch_size=8, collate_fn=collate)
    began, worked = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        train_model_simple(
            model, loader, val, optimizer, "cpu", num_epochs=1, eval_freq=5, eval_iter=5,
            start_context=format_input(plan["val"][0]), tokenizer=encoding,
        )  # fmt: skip
    seconds = time.perf_counter() - began
    worked = time.process_time() - worked
    result = {
        "seconds": round(seconds, 2),
        "processor_seconds": round(worked, 2),
        "steps": len(batches),
        "peak_MB": peak(),
    }
    print(json.dumps(result | val_losses(model, plan["val"], encoding)))


def released(weights: dict[str, torch.Tensor], layers: int) -> dict[str, Any]:
    """The weights as the package's own loader expects OpenAI's."""
    get = {name.removeprefix("transformer."): tensor.numpy() for name, tensor in weights.items()}

    def part(name: str) -> dict[str, Any]:
        return {"w": get[f"{name}.weight"], "b": get[f"{name}.bias"]}

    def norm(name: str) -> dict[str, Any]:
        return {"g": get[f"{name}.weight"], "b": get[f"{name}.bias"]}

    blocks = [
        {
            "attn": {"c_attn": part(f"h.{i}.attn.c_attn"), "c_proj": part(f"h.{i}.attn.c_proj")},
            "mlp": {"c_fc": part(f"h.{i}.mlp.c_fc"), "c_proj": part(f"h.{i}.mlp.c_proj")},
            "ln_1": norm(f"h.{i}.ln_1"),
            "ln_2": norm(f"h.{i}.ln_2"),
        }
        for i in range(layers)
    ]
    return {"wpe": get["wpe.weight"], "wte": get["wte.weight"], "blocks": blocks, **norm("ln_f")}


@torch.no_grad()
def val_losses(model: torch.nn.Module, records: list[dict[str, str]], encoding: tiktoken.Encoding) -> dict[str, float]:
    """Mean nats over the val split: of all its tokens, as this loop trains them, and of the answers and their ends."""
    model.eval()
    total = count = answers = trained = 0.0
    for record in records:
        prompt = encoding.encode(f"{format_input(record)}\n\n### Response:\n")
        text = f"{format_input(record)}\n\n### Response:\n{record['output']}"
        ids = torch.tensor([*encoding.encode(text), 50256])
        nats = cross_entropy(model(ids[None, :-1])[0], ids[1:], reduction="none")
        total, count = total + float(nats.sum()), count + len(nats)
        answers, trained = answers + float(nats[len(prompt) - 1 :].sum()), trained + len(nats) - len(prompt) + 1
    return {"val_loss_all_tokens": round(total / count, 4), "val_loss_answers": round(answers / trained, 4)}


def peak() -> float:
    """Peak memory of this process in MB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(size / (1024 if sys.platform != "darwin" else 1 << 20), 1)


if __name__ == "__main__":
    main()
