"""A random GPT-2 with GPT-2's tokenizer, as a run folder: what both loops start from. `start.py FOLDER DATA`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from pellucid.config import PRESETS
from pellucid.model.gpt import GPT
from pellucid.text.tokenizer import Tokenizer


def main() -> None:
    """Write FOLDER/base."""
    folder, data = Path(sys.argv[1]), sys.argv[2]
    os.environ["PELLUCID_DATA"] = data
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    torch.manual_seed(123)
    GPT(replace(PRESETS["gpt2"], n_layers=plan["layers"], dropout=0.0)).save(folder / "base")
    Tokenizer.load("gpt2").save(folder / "base")
    print("{}")


if __name__ == "__main__":
    main()
