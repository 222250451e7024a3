"""`pellucid finetune …` and `pellucid classify` on own files."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pellucid.model.gpt import GPT
from pellucid.pretrain.metrics import read_lines
from pellucid.text.tokenizer import Tokenizer


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    rows = [f"win {i} lamps now,spam\nthe fox is with Ben {i},ham\n" for i in range(60)]
    (tmp_path / "labels.csv").write_text("text,label\n" + "".join(rows))
    return tmp_path / "labels.csv"


@pytest.fixture
def instructions(tmp_path: Path) -> Path:
    rows = [{"instruction": f"Say {i}.", "output": "Yes." if i % 2 else "No."} for i in range(60)]
    (tmp_path / "talk.json").write_text(json.dumps(rows))
    return tmp_path / "talk.json"


def test_a_classifier_is_made_scored_and_used(call: Any, base_folder: Path, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = call("finetune", "classify", base_folder, "--data", labels, "--out", out, "--epochs", 2, "--json")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert scores["texts"] == 24
    assert sum(map(sum, scores["confusion"])) == 24
    assert json.loads((out / "run.json").read_text())["data"].keys() == {"labels.csv"}
    (tmp_path / "texts.txt").write_text("win 3 lamps now\n\nthe fox\n")
    for arguments, stdin in [(("--file", tmp_path / "texts.txt"), ""), (("--file", "-"), "win 3 lamps now\nthe fox\n")]:
        answer = json.loads(call("classify", out, *arguments, "--json", stdin=stdin).stdout)
        assert [row["text"] for row in answer["results"]] == ["win 3 lamps now", "the fox"]
    (tmp_path / "new.csv").write_text('id,Comment\n1,"win 3 lamps,\nnow"\n2,\n3,the fox\n')
    answer = call("classify", out, "--file", tmp_path / "new.csv", "--text-column", "comment", "--json")
    assert [row["text"] for row in json.loads(answer.stdout)["results"]] == ["win 3 lamps,\nnow", "the fox"]
    assert "left out as empty: 1 of 3 texts" in answer.stderr
    assert "labels" not in json.loads(answer.stdout)["results"][0]
    lines = call("classify", out, "win 3 lamps now", "the\nfox").stdout.splitlines()
    assert len(lines) == 2
    written = call("generate", out, "--prompt", "the", "--max-tokens", 2)
    assert f"{out} is a classifier" in written.stderr
    assert "pellucid classify" in written.stderr
    again = call("finetune", "classify", base_folder, "--data", labels, "--out", out, "--epochs", 2)
    assert again.returncode == 2
    assert "--resume" in again.stderr


def test_an_assistant_is_made_and_scored(call: Any, base_folder: Path, instructions: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = call("finetune", "instruct", base_folder, "--data", instructions, "--out", out, "--epochs", 2, "--json")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert scores["questions"] == 6
    assert 0 <= scores["exact_match"] <= 1
    assert call("chat", out, "--max-tokens", 3, stdin="Say 3.\n").returncode == 0


@pytest.mark.parametrize("verb", ["classify", "instruct"])
def test_the_model_that_is_finetuned_is_never_overwritten_nor_is_another_one(
    call: Any, base_folder: Path, labels: Path, instructions: Path, tmp_path: Path, verb: str
) -> None:
    before = (base_folder / "model.safetensors").read_bytes()
    data = labels if verb == "classify" else instructions
    other = shutil.copytree(base_folder, tmp_path / "other")
    for more in ([], ["--resume"]):
        for out in (base_folder / ".." / "base", other):
            done = call("finetune", verb, base_folder, "--data", data, "--out", out, *more)
            assert done.returncode == 2
            assert "--out" in done.stderr
    assert (base_folder / "model.safetensors").read_bytes() == before == (other / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--epochs", 0], "0.0 epochs"),
        (["--batch-size", 0], "batch size of 0"),
        (["--lr=-1"], "lr"),
        (["--micro-batch-size=-1"], "micro_batch_size"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(
    call: Any, base_folder: Path, labels: Path, tmp_path: Path, more: list[Any], said: str
) -> None:
    done = call("finetune", "classify", base_folder, "--data", labels, "--out", tmp_path / "run", *more)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("train", ["last-1", "head", "lora"])
def test_only_what_is_asked_for_is_trained(
    call: Any, base_folder: Path, labels: Path, tmp_path: Path, train: str
) -> None:
    out = tmp_path / "run"
    more = ("--base", "int8") if train == "lora" else ()
    done = call(
        "finetune", "classify", base_folder, "--data", labels, "--out", out, "--epochs", 1, "--train", train, *more
    )
    assert done.returncode == 0, done.stderr
    before, after = GPT.load(base_folder).state_dict(), GPT.load(out).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if train == "lora":
        assert changed and all("blocks." in name and name.endswith("weight") for name in changed)
    else:
        assert bool(changed) == (train == "last-1")
        assert all(name.startswith(("blocks.1.", "final_norm.")) for name in changed)
    assert (out / "adapter").is_dir() == (train == "lora")


def test_a_part_that_is_none_is_refused(call: Any, base_folder: Path, labels: Path, tmp_path: Path) -> None:
    for train in ("last-3", "last-0", "tail"):
        done = call("finetune", "classify", base_folder, "--data", labels, "--out", tmp_path / "x", "--train", train)
        assert done.returncode == 2
        assert "all, last-1 to last-2, head or lora" in done.stderr


def test_texts_with_several_labels_make_a_classifier_that_says_several(
    call: Any, base_folder: Path, tmp_path: Path
) -> None:
    rows = [f"{i} lamps,a|b\n{i} fox,\n{i} Ben,b\n" for i in range(30)]
    (tmp_path / "d.csv").write_text("text,label\n" + "".join(rows))
    out = tmp_path / "run"
    done = call(
        "finetune", "classify", base_folder, "--data", tmp_path / "d.csv", "--out", out,
        "--multi-label", "--epochs", 20, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] > 0.9
    settings = json.loads((out / "config.json").read_text())
    assert settings["problem_type"] == "multi_label_classification"
    answers = json.loads(call("classify", out, "3 lamps", "4 fox", "--json").stdout)["results"]
    assert [(row["label"], row["labels"]) for row in answers] == [("a|b", ["a", "b"]), ("", [])]


def test_answers_come_as_a_table_csv_or_jsonl(call: Any, base_folder: Path, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert call("finetune", "classify", base_folder, "--data", labels, "--out", out, "--epochs", 1).returncode == 0
    texts = ['win "3", now', "the fox"]
    table = list(csv.DictReader(io.StringIO(call("classify", out, *texts, "--format", "csv").stdout)))
    rows = [json.loads(line) for line in call("classify", out, *texts, "--format", "jsonl").stdout.splitlines()]
    assert [row["text"] for row in table] == [row["text"] for row in rows] == texts
    assert [float(row["probability"]) for row in table] == pytest.approx([row["probability"] for row in rows])


def test_an_assistant_is_made_with_adapters_and_peft_opens_them(
    call: Any, base_folder: Path, instructions: Path, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    out = tmp_path / "run"
    targets = ("--lora-targets", "attention.value", "feed_forward.expand")
    given = ("--data", instructions, "--out", out, "--epochs", 1, "--train", "lora", "--lora-rank", 2, *targets)
    done = call("finetune", "instruct", base_folder, *given)
    assert done.returncode == 0, done.stderr
    named = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert named["r"] == 2
    assert named["target_modules"] == ["attn.c_attn", "mlp.c_fc"]
    ours, ids = GPT.load(out), torch.randint(0, 250, (2, 9))
    theirs = AutoModelForCausalLM.from_pretrained(base_folder)
    theirs.resize_token_embeddings(ours.config.vocab_size, mean_resizing=False)
    theirs = peft.PeftModel.from_pretrained(theirs, out / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)


def test_an_assistant_has_no_head_to_train(call: Any, base_folder: Path, instructions: Path, tmp_path: Path) -> None:
    given = ("--data", instructions, "--out", tmp_path / "run", "--train", "head")
    done = call("finetune", "instruct", base_folder, *given)
    assert done.returncode == 2
    assert "Only a classifier has a head" in done.stderr


@pytest.mark.parametrize(
    ("weight", "more"),
    [("none", []), ("balanced", ["--average", 0.9]), ("sampler", ["--early-stop", 9, "--recompute"])],
)
def test_a_stopped_classifier_with_a_teacher_goes_on_to_the_same_bits(
    call: Any, base_folder: Path, labels: Path, tmp_path: Path, weight: str, more: list[Any]
) -> None:
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join(lines[:1] + lines[1::2] + lines[2:80:2]))  # 60 of one class, 39 of the other
    one, two = tmp_path / "one", tmp_path / "two"
    given = ["finetune", "classify", base_folder, "--data", labels, "--class-weight", weight, "--batch-size", 8]
    given += ["--epochs", 0.5, "--dtype", "float32", "--checkpoint-every", 3, "--teacher", "linear", *more]
    done = call(*given, "--out", one)
    assert done.returncode == 0 and "too few texts for a teacher" not in done.stderr, done.stderr
    shutil.copytree(one / "training", two / "training")
    shutil.rmtree(max(two.glob("training/step-*")))
    done = call(*given, "--out", two, "--resume")
    assert done.returncode == 0, done.stderr
    assert read_lines(two / "metrics.jsonl")[0]["step"] > 1, "it went on"
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--packing", "--early-stop", 9],
        ["--train", "lora", "--best"],
        ["--train", "lora", "--base", "int8", "--average", "0.9", "--best"],
    ],
)
def test_a_stopped_assistant_goes_on_to_the_same_bits(
    call: Any, base_folder: Path, instructions: Path, tmp_path: Path, more: list[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    file = tmp_path / "settings.toml"
    given = ("finetune", "instruct", base_folder, "--data", instructions, "--epochs", 4, *more, "--config", file)
    file.write_text("checkpoint-every = 4\n")
    done = call(*given, "--out", one)
    assert done.returncode == 0, done.stderr
    shutil.copytree(one / "training", two / "training")
    newest = max(two.glob("training/step-*"))
    assert len(list(two.glob("training/step-*"))) == 2
    shutil.rmtree(newest)
    refused = call(*given, "--out", two)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    done = call(*given, "--out", two, "--resume")
    assert done.returncode == 0, done.stderr
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()


def test_adapters_alone_are_written_and_merged_later(
    call: Any, base_folder: Path, instructions: Path, tmp_path: Path
) -> None:
    given = ("finetune", "instruct", base_folder, "--data", instructions, "--epochs", 1, "--train", "lora")
    for out, more in [("merged", []), ("alone", ["--no-merge"])]:
        done = call(*given, "--out", tmp_path / out, *more)
        assert done.returncode == 0, done.stderr
    assert "pellucid import" in done.stdout
    assert not (tmp_path / "alone" / "model.safetensors").exists()
    alone, adapter = tmp_path / "alone", tmp_path / "alone" / "adapter"
    for verb in (["chat", alone], ["chat", adapter], ["import", alone, "--out", tmp_path / "nothing"]):
        refused = call(*verb)
        assert refused.returncode == 2
        assert f"pellucid import {adapter} --out RUN" in refused.stderr
    # a run settles its precision by the clock, so what is compared is one run's adapter, merged at once and later
    for run, out in [("merged", "later"), ("alone", "opened")]:
        done = call("import", tmp_path / run / "adapter", "--out", tmp_path / out)
        assert done.returncode == 0, done.stderr
    ids = torch.randint(0, 250, (2, 9))
    with torch.no_grad():
        later, merged = GPT.load(tmp_path / "later")(ids), GPT.load(tmp_path / "merged")(ids)
    torch.testing.assert_close(later, merged, atol=1e-5, rtol=1e-5)
    assert call("chat", tmp_path / "opened", "--max-tokens", 3, stdin="Hi\n").returncode == 0


def damaged(base: Path, folder: Path, **settings: Any) -> Path:
    """A copy of a model folder whose tokenizer_config.json says something else."""
    shutil.copytree(base, folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return folder


@pytest.mark.parametrize("verb", ["instruct", "classify"])
def test_a_folder_that_is_no_model_or_whose_vocabulary_does_not_fit_is_refused(
    call: Any, base_folder: Path, labels: Path, instructions: Path, tmp_path: Path, verb: str
) -> None:
    data = {"instruct": instructions, "classify": labels}[verb]
    larger = tmp_path / "larger"
    shutil.copytree(base_folder, larger)
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_special_tokens([f"<|{i}|>" for i in range(5)])
    tokenizer.save(larger)
    (tmp_path / "empty").mkdir()
    for base, said in [(larger, "tokens; expected at most"), (tmp_path / "empty", "config.json"),
                       (tmp_path / "none", "none")]:  # fmt: skip
        done = call("finetune", verb, base, "--data", data, "--out", tmp_path / "run")
        assert done.returncode == 2, done.stdout
        assert said in done.stderr
        assert not (tmp_path / "run").exists()


def test_one_record_is_too_few_and_a_megabyte_is_cut(call: Any, base_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "talk.json"
    data.write_text(json.dumps([{"instruction": "a", "output": "b"}]))
    given = ("finetune", "instruct", base_folder, "--data", data, "--out", tmp_path / "run", "--epochs", 1)
    done = call(*given)
    assert done.returncode == 2
    assert "too few" in done.stderr
    rows = [{"instruction": f"Say {i}.", "output": "fox " * (250_000 if i == 3 else 2)} for i in range(20)]
    data.write_text(json.dumps(rows))
    done = call(*given)
    assert done.returncode == 0, done.stderr
    assert "longer than the context of 64 tokens" in done.stderr or "answered" in done.stdout


def test_a_single_held_out_question_has_no_interval(call: Any, base_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "talk.json"
    data.write_text(json.dumps([{"instruction": f"Say {i}.", "output": "Yes."} for i in range(9)]))
    done = call("finetune", "instruct", base_folder, "--data", data, "--out", tmp_path / "run", "--epochs", 1)
    assert done.returncode == 0, done.stderr
    assert "one held-out question, too few for intervals" in done.stdout and " to " not in done.stdout


@pytest.mark.parametrize(
    ("template", "said"),
    [("{% for m in messages %}{{ m['content'] }}{% endfor %}", "never ends an answer"),
     ("{% for i in range(10 ** 9) %}{{ eos_token }}{% endfor %}", "another layout")],
)  # fmt: skip
def test_a_chat_template_of_another_layout_is_refused_unrun_and_replaced_by_finetuning(
    call: Any, base_folder: Path, instructions: Path, tmp_path: Path, template: str, said: str
) -> None:
    out = tmp_path / "run"
    foreign = damaged(base_folder, tmp_path / "foreign", chat_template=template)
    done = call("finetune", "instruct", foreign, "--data", instructions, "--out", out, "--epochs", 1)
    assert done.returncode == 0, done.stderr
    assert "own chat template is replaced" in done.stderr
    assert call("chat", out, "--max-tokens", 2, stdin="Hi\n").returncode == 0
    edited = damaged(out, tmp_path / "edited", chat_template=template)
    (edited / "chat_template.jinja").unlink(missing_ok=True)
    done = call("chat", edited, stdin="Hi\n")
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize("more", [[], ["--packing"]])
def test_a_batch_that_is_read_in_parts_has_the_losses_of_the_whole(
    call: Any, base_folder: Path, instructions: Path, tmp_path: Path, more: list[str]
) -> None:
    given = ("finetune", "instruct", base_folder, "--data", instructions, "--epochs", 1, "--dtype", "float32", *more)
    losses = []
    for rows in (0, 3):
        done = call(*given, "--out", tmp_path / f"{rows}", "--micro-batch-size", rows)
        assert done.returncode == 0, done.stderr
        losses.append([line["loss"] for line in read_lines(tmp_path / f"{rows}" / "metrics.jsonl")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
