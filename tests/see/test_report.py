"""The reports: read from a folder as the quickstart leaves it, in one file, with parts that may be missing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pellucid.config import ModelConfig
from pellucid.model.gpt import GPT
from pellucid.runtime import DataError, write_json
from pellucid.see.report import gather, spread, write_report, write_runs_report
from pellucid.text.bpe import BPETokenizer

ATTACK = "<script>alert(1)</script> <!-- --> $x^2$ <b>bold</b>"
SENTENCE = "Anna gives the red lamp to Ben."


def scores(loss: float) -> dict[str, Any]:
    return {
        "loss": loss, "loss_interval": [loss - 0.03, loss + 0.03],
        "perplexity": 2.718**loss, "perplexity_interval": [2.718**loss - 0.2, 2.718**loss + 0.2],
        "bits_per_byte": loss / 2.6, "bits_per_byte_interval": [loss / 2.6 - 0.01, loss / 2.6 + 0.01],
        "tokens": 40000, "bytes": 150000, "parts": 300,
    }  # fmt: skip


def write_metrics(folder: Path, tokens_per_step: int, low: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for step in range(0, 1001, 10):
        loss = low + 6.5 / (1 + step / 25)
        line = {"step": step, "split": "train", "loss": loss + 0.05 * (step % 3), "lr": 0.01, "grad_norm": 1.0}
        lines.append(line | {"tokens": step * tokens_per_step, "tokens_per_s": 21000.0, "seconds": step / 5})
        if step % 100 == 0:
            lines.append({"step": step, "split": "val", "loss": loss, "tokens": step * tokens_per_step})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"step": 1010, "spl', encoding="utf-8")
    texts = [
        "qx lam ththe",
        "the the lamp .",
        "Anna has red lamp the",
        "Anna gives the lamp to Ben. Ben has it now.",
        ATTACK,
    ]
    samples = [{"step": 200 * i, "loss": low + 5 / (i + 1), "text": f"{text}\n"} for i, text in enumerate(texts)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in samples), encoding="utf-8")


def report() -> dict[str, Any]:
    seconds = {"text": 9.1, "model": 0.4, "pretrain": 148.0, "evaluate": 11.3, "classify": 31.0, "instruct": 58.0}
    return {
        "seconds": seconds | {"report": 2.1, "total": 260.0},
        "pretrain": {"val_loss": 1.71, "test_loss": 1.72, "test_bits_per_byte": 0.66, "floor_loss": 1.6,
                     "tokens_per_s": 21034.0},
        "classify": {"accuracy": 0.98, "precision": 0.98, "recall": 0.97, "f1": 0.975, "baseline_f1": 0.93},
        "instruct": {"exact_match": 0.93, "baseline_exact_match": 0.12, "families": {"sums": 0.9}, "stop_rate": 1.0},
        "machine": {"python": "3.11.9", "torch": "2.13.0+cpu", "cores": 2, "memory_gb": 15.6, "peak_memory_gb": 1.43,
                    "platform": "Linux-6.1-x86_64"},
        "version": "0.1.0", "command": "pellucid quickstart --out runs/quickstart",
    }  # fmt: skip


def classify() -> dict[str, Any]:
    whole = {"accuracy": 0.98, "precision": 0.981, "recall": 0.97, "f1": 0.975, "positive": "spam",
             "labels": ["ham", "spam"], "confusion": [[412, 4], [6, 198]], "texts": 620}  # fmt: skip
    item = {"text": f"Win the red lamp now! {ATTACK}", "truth": "ham", "answer": "spam", "probability": 0.71}
    right = {"text": "Are we still on for tea at six?", "truth": "ham", "answer": "ham", "probability": 0.998}
    sizes = {"train": 4000, "val": 500, "test": 620}
    return {
        "scores": whole,
        "baseline": whole | {"f1": 0.93},
        "mistakes": [item] * 3,
        "right": [right] * 4,
        "sizes": sizes,
    }


def instruct() -> dict[str, Any]:
    families = {"sums": 0.9, "opposites": 1.0, "past_tense": 0.95, "story_questions": 0.82, "sorting_words": 0.99}
    answer = {"instruction": "What is the opposite of hot?", "input": "", "said": "cold", "expected": "cold",
              "right": True, "ended": True, "family": "opposites"}  # fmt: skip
    wrong = answer | {"instruction": "Add 17 and 25.", "input": ATTACK, "said": "43", "expected": "42", "right": False}
    return {
        "scores": {"exact_match": 0.93, "families": families, "stop_rate": 0.998, "questions": 600},
        "baseline": {"exact_match": 0.12, "families": dict.fromkeys(families, 0.1) | {"opposites": 0.31}},
        "answers": [answer, answer | {"ended": False}, wrong, wrong],
        "sizes": {"train": 9000, "val": 300, "test": 600},
    }


def write_quickstart(folder: Path, model: GPT, tokenizer: BPETokenizer) -> None:
    """A folder as the quickstart leaves it, without its training: tiny random weights and numbers made up."""
    model.save(folder)
    tokenizer.save(folder)
    write_json(folder / "report.json", report())
    bpe = [piece.text for piece in tokenizer.pieces(SENTENCE)]
    views = {"word": ["Anna", "gives", "the", "red", "lamp", "to", "Ben", "."], "char": list(SENTENCE), "bpe": bpe}
    sizes = {"documents": {"train": 20000, "val": 400, "test": 400}, "tokens": {"train": 3000000, "val": 4, "test": 5}}
    total = model.parameter_count()
    parts = [[name, count, count / total] for name, count in model.parts()]
    config = {"n_layers": 3, "n_heads": 3, "d_model": 24, "context_length": 64}
    tried = {"float32": 0.21, "bfloat16": 0.35}
    results: dict[str, Any] = {
        "text": sizes | {"source": "embedded", "vocab_size": 300, "sentence": SENTENCE, "views": views},
        "model": {"parts": parts, "parameters": total, "config": config},
        "pretrain": {"steps": 1000, "tokens": 4096000, "tokens_per_s": 21034.0, "val_loss": 1.71, "dtype": "float32",
                     "tried": tried},
        "evaluate": {"model": scores(1.72), "unigram": scores(5.6), "ngram": scores(2.21), "ngram_order": 4,
                     "floor_loss": 1.6, "floor_bits_per_byte": 0.61},
        "classify": classify(), "instruct": instruct(),
    }  # fmt: skip
    for stage, result in results.items():
        write_json(folder / "results" / f"{stage}.json", result)
    write_metrics(folder, 4096, 1.6)
    write_metrics(folder / "classifier", 900, 0.05)
    write_metrics(folder / "assistant", 2000, 0.1)


@pytest.fixture(scope="module")
def quickstart(model: GPT, tokenizer: BPETokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "quickstart"
    write_quickstart(folder, model, tokenizer)
    write_report(folder, folder / "report.html")
    return folder


def test_the_report_says_the_headline_numbers(quickstart: Path) -> None:
    page = (quickstart / "report.html").read_text(encoding="utf-8")
    for number in ("4 min 20 s", "0.975", "93 %", "0.850", "7.5 % above it"):
        assert number in re.sub(r"\s+", " ", page), number
    for heading in ("1 &ensp;Text", "2 &ensp;Foundation", "3a &ensp;", "3b &ensp;", "What it took"):
        assert heading in page


def test_the_report_loads_nothing_and_runs_nothing(quickstart: Path) -> None:
    page = (quickstart / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<!--" not in page
    assert "<b>" not in page
    assert "Content-Security-Policy\" content=\"default-src 'none'" in page
    assert not re.search(r"@import|url\((?!#)|<link|\ssrc=", page)
    links = re.findall(r'href="([^"]*)"', page)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)


def test_pictures_take_their_colours_from_the_page(quickstart: Path) -> None:
    picture = gather(quickstart)["losses"]
    assert "var(--blue)" in picture
    assert "held-out text" in picture
    assert "4-gram model 2.210" in picture
    assert not re.search(r"#0[0-6]000[0-3]", picture)


@pytest.mark.parametrize("stage", ["text", "model", "pretrain", "evaluate", "classify", "instruct"])
def test_a_stage_that_is_missing_is_left_out(quickstart: Path, tmp_path: Path, stage: str) -> None:
    folder = tmp_path / "partial"
    shutil.copytree(quickstart, folder)
    (folder / "results" / f"{stage}.json").unlink()
    (folder / "model.safetensors").unlink()  # no model, no attention picture
    write_report(folder, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "What it looks at" not in page
    assert "None" not in page


def test_a_report_of_numbers_alone_is_still_a_page(tmp_path: Path) -> None:
    write_json(tmp_path / "report.json", {"seconds": {"total": 12.0}})
    write_report(tmp_path, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "12\N{NO-BREAK SPACE}s" in page
    assert "None" not in page


def test_null_floor_is_not_spoken_of(quickstart: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(quickstart, folder)
    evaluate = json.loads((folder / "results" / "evaluate.json").read_text(encoding="utf-8"))
    write_json(folder / "results" / "evaluate.json", evaluate | {"floor_loss": None, "floor_bits_per_byte": None})
    write_report(folder, tmp_path / "report.html")
    assert "floor" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_no_report_json_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"report\.json"):
        write_report(tmp_path, tmp_path / "report.html")


def test_runs_side_by_side(quickstart: Path, tmp_path: Path) -> None:
    write_json(quickstart / "run.json", {"command": ["pellucid", "pretrain", ATTACK]})
    write_runs_report([quickstart, quickstart / "assistant"], tmp_path / "runs.html")
    page = (tmp_path / "runs.html").read_text(encoding="utf-8")
    assert "2 runs side by side" in page
    assert page.count('<th scope="row">') == 2
    assert "<script" not in page
    assert "Anna gives the lamp to Ben. Ben" in page


def test_a_run_of_any_architecture_has_its_own_sizes(tmp_path: Path) -> None:
    write_metrics(tmp_path / "llama", 10, 1.0)
    shape = ModelConfig("llama", 321, context_length=16, d_model=30, n_layers=5, n_heads=3, n_kv_heads=1)
    GPT(shape).save(tmp_path / "llama")
    write_runs_report([tmp_path / "llama"], tmp_path / "runs.html")
    row = re.search(r'<th scope="row">llama</th>.*', (tmp_path / "runs.html").read_text(encoding="utf-8"))
    assert row is not None
    assert re.findall(r'<td class="n">([^<]*)</td>', row[0])[-4:] == ["5", "3", "30", "321"]


def test_a_folder_without_training_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        write_runs_report([tmp_path / "nowhere"], tmp_path / "runs.html")
    with pytest.raises(DataError, match=r"metrics\.jsonl"):
        write_runs_report([tmp_path], tmp_path / "runs.html")


def test_samples_are_spread_from_first_to_last() -> None:
    assert [line["step"] for line in spread([{"step": i} for i in range(11)], 6)] == [0, 2, 4, 6, 8, 10]
    assert spread([{"step": 0}], 6) == [{"step": 0}]
