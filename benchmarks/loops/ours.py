"""Our loop on the same batches: `ours.py FOLDER DATA same|ours adamw|adafactor` prints JSON.

`same` trains the very tokens that llms-from-scratch trains, prompts and all. `ours` is what `pellucid finetune instruct
--packing` does: our layout of a conversation, and only the answers and their ends are trained.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch

from pellucid.config import FitConfig
from pellucid.finetune.instruct import InstructionTuning, Row, answer_loss, packed_batch, prepare_model
from pellucid.finetune.instructions import Example
from pellucid.model.gpt import GPT
from pellucid.pretrain.fit import fit
from pellucid.text.tokenizer import Tokenizer

LAYOUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}"
)
RATES = {"lr": 5e-4, "matrix_lr": 5e-4, "weight_decay": 0.1}  # Muon's products would cost more than the step itself


class GivenBatches(InstructionTuning):
    """Instruction tuning on records in a given order, packed into rows."""

    order: list[list[int]]
    packed_to = 256

    def batches(self, step: int) -> list[object]:  # type: ignore[override]
        rows = [self.rows["train"][i] for i in self.order[step]]
        return [packed_batch(rows, max(self.packed_to, *(len(ids) for ids, _ in rows)), self.tokenizer.end_of_text)]


def main() -> None:
    """Train, time, and judge on the val split."""
    folder, how, optimizer = Path(sys.argv[1]), sys.argv[3], sys.argv[4]
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    model, tokenizer = GPT.load(folder / "base"), Tokenizer.load(folder / "base")
    prepare_model(model, tokenizer)
    splits = {
        name: [Example(record["instruction"], record["input"], record["output"]) for record in plan[name]]
        for name in ("train", "val")
    }
    config = FitConfig(
        steps=plan["steps"],
        batch_size=8,
        dtype="auto",
        optimizer=optimizer,
        evaluate_share=1.0,
        seed=123,
        checkpoint_every=plan["steps"],
        **RATES,
    )
    task = GivenBatches(splits, tokenizer, config, model.config.context_length)
    task.order = plan["batches"]
    if how == "same":
        task.rows = {name: [their_row(record, tokenizer, True) for record in plan[name]] for name in ("train", "val")}
    began, worked = time.perf_counter(), time.process_time()
    fit(model, task, config, folder / how / optimizer)
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)
    result = {"seconds": round(seconds, 2), "processor_seconds": round(worked, 2), "steps": plan["steps"]}
    result["peak_MB"] = round(size, 1)
    model.eval()
    with torch.inference_mode():
        if how == "same":
            answers = [their_row(record, tokenizer, False) for record in plan["val"]]
            result["val_loss_all_tokens"] = loss_of(model, task.rows["val"], tokenizer)
        else:
            answers = task.rows["val"]
        result["val_loss_answers"] = loss_of(model, answers, tokenizer)
    print(json.dumps(result))


def loss_of(model: GPT, rows: list[Row], tokenizer: Tokenizer) -> float:
    """Mean nats of the trained tokens, rounded."""
    return round(answer_loss(model, rows, tokenizer.end_of_text) or 0.0, 4)


def their_row(record: dict[str, str], tokenizer: Tokenizer, all_tokens: bool) -> Row:
    """A record in the book's layout, with all tokens trained, as its loop does, or the answer alone."""
    about = f"\n\n### Input:\n{record['input']}" if record["input"] else ""
    prompt = f"{LAYOUT.format(**record)}{about}\n\n### Response:\n"
    begun = len(tokenizer.encode(prompt))
    ids = [*tokenizer.encode(prompt + record["output"]), tokenizer.end_of_text]
    return ids, [all_tokens or place >= begun for place in range(len(ids))]


if __name__ == "__main__":
    main()
