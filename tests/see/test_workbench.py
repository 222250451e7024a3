"""The workbench without a browser: its data are the model's own values, and whatever is asked gets a fitting answer."""

from __future__ import annotations

import gc
import json
import re
import shutil
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from starlette.datastructures import QueryParams
from starlette.testclient import TestClient
from torch import Tensor

from pellucid.assistant.server.app import build
from pellucid.assistant.server.models import OpenModels
from pellucid.config import FitConfig, ModelConfig
from pellucid.finetune.classify import Classifier, encode_texts, predict
from pellucid.finetune.conversation import CHAT_TEMPLATE, ensure_role_tokens
from pellucid.finetune.instructions import Example
from pellucid.generation.sampling import Sampling, next_token
from pellucid.model.gpt import GPT
from pellucid.model.layers import LayerNorm
from pellucid.opened import Runs
from pellucid.pretrain.commands import train_language_model
from pellucid.pretrain.snapshots import snapshots
from pellucid.runtime import sha256, write_json
from pellucid.see.shelf import OPEN, Shelf
from pellucid.see.source import NAMES, place
from pellucid.see.views.assistant import examples
from pellucid.see.views.embeddings import vocabulary
from pellucid.see.views.tokens import tokens
from pellucid.see.views.training import POINTS
from pellucid.see.workbench import DATA, LONGEST, PAGES, Question, routes
from pellucid.text.bpe import BPETokenizer
from pellucid.text.documents import Document
from pellucid.text.shard_writer import write_shards
from pellucid.text.tokenizer import Tokenizer

TEXT = "Anna gives the red lamp to Ben."
ATTACK = "<script>alert(1)</script> </textarea><b onclick='x'>bold</b> \x1b[31mred\x1b[0m \u202e ${x} {{ 7*7 }}"
WEB = Path(__file__).parents[2] / "pellucid/see/web"


def save(folder: Path, model: GPT, tokenizer: Tokenizer) -> Path:
    model.save(folder, bos_token_id=tokenizer.end_of_text, eos_token_id=tokenizer.end_of_text)
    tokenizer.save(folder)
    return folder


def lively(config: ModelConfig) -> GPT:
    torch.manual_seed(1)
    model = GPT(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def folders(model: GPT, tokenizer: BPETokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("served")
    size = {"vocab_size": tokenizer.vocab_size, "context_length": 64, "d_model": 24, "n_layers": 2}
    llama = lively(ModelConfig("llama", n_heads=4, n_kv_heads=2, query_key_norm=True, tied=False, **size))  # type: ignore[arg-type]
    classifier = Classifier(lively(ModelConfig(n_heads=2, **size)), ["ham", "spam"])  # type: ignore[arg-type]
    torch.nn.init.normal_(classifier.head.weight, std=0.5)
    classifier.eval().save(root / "classifier", BPETokenizer.train([TEXT * 3], vocab_size=290))
    return {
        "gpt2": save(root / "gpt2", model, tokenizer),
        "llama": save(root / "llama", llama, tokenizer),
        "classifier": root / "classifier",
    }


@pytest.fixture(scope="module")
def client(folders: dict[str, Path]) -> Iterator[TestClient]:
    runs = Runs([folders[name] for name in ("gpt2", "llama", "classifier")])
    with TestClient(
        build(OpenModels(runs), pages=routes), base_url="http://127.0.0.1", raise_server_exceptions=False
    ) as client:
        yield client
    runs.close()


def ask(client: TestClient, view: str, **asked: Any) -> Any:
    answer = client.get(f"/data/{view}", params={"text": TEXT, **asked})
    assert answer.status_code == 200, answer.text
    return answer.json()


def close(found: Any, expected: Tensor) -> None:
    """To the six decimals that a page gets: 1e-6."""
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected.double(), atol=1e-6, rtol=1e-7)


class Recorder:
    """The model's own values of one pass, noted by hooks of the test: an observer apart from `trace`."""

    def __init__(self, folder: Path) -> None:
        self.model, self.tokenizer = GPT.load(folder), Tokenizer.load(folder)
        self.ids = torch.tensor([[self.tokenizer.end_of_text, *self.tokenizer.encode(TEXT)]])
        self.into: dict[str, Tensor] = {}
        self.out: dict[str, Tensor] = {}
        for name, module in self.model.named_modules():
            module.register_forward_hook(
                lambda _, given, made, name=name: self.note(name, given[0], made)  # type: ignore[misc]
            )
        with torch.no_grad():
            self.logits = self.model(self.ids)[0]

    def note(self, name: str, given: Any, made: Any) -> None:
        self.into[name] = given[0] if isinstance(given, Tensor) else given
        self.out[name] = made[0] if isinstance(made, Tensor) else made


# ---------------------------------------------------------------- the numbers


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_embeddings_are_the_models_own(client: TestClient, folders: dict[str, Path], family: str) -> None:
    own, found = Recorder(folders[family]), ask(client, "embeddings", model=family)
    close(found["token_embedding"], own.out["token_embedding"])
    close(found["input"], own.into["blocks.0"])
    assert ("position_embedding" in found) == (family == "gpt2")


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("head", [0, 2])
def test_attention_step_by_step_ends_in_the_models_own_context(
    client: TestClient, folders: dict[str, Path], family: str, head: int
) -> None:
    own = Recorder(folders[family])
    found = ask(client, "attention", model=family, layer=1, head=head, dropout=0.25, seed=3)
    width = own.model.config.d_head
    context = own.into["blocks.1.attention.output"][:, head * width : (head + 1) * width]
    close(found["context"], context)
    weights, values = (torch.tensor(found[key]) for key in ("weights", "values"))
    torch.testing.assert_close(weights @ values, context, atol=1e-5, rtol=0)
    queries, keys = (torch.tensor(found[key], dtype=torch.float64) for key in ("queries", "keys"))
    torch.testing.assert_close(torch.tensor(found["scores"]).double(), queries @ keys.mT, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        torch.tensor(found["scaled"]).double(), queries @ keys.mT / width**0.5, atol=1e-4, rtol=0
    )
    masked = torch.tensor([[-torch.inf if value is None else value for value in row] for row in found["masked"]])
    assert bool((masked.isinf() == torch.ones_like(masked).triu(1).bool()).all())
    close(found["weights"], masked.softmax(dim=1))
    torch.manual_seed(3)
    close(found["dropped"], F.dropout(weights, 0.25, training=True))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_block_is_the_models_own(client: TestClient, folders: dict[str, Path], family: str) -> None:
    own, found = Recorder(folders[family]), ask(client, "block", model=family, layer=1, token=3)
    expected = {
        "residual_in": own.into["blocks.1"],
        "attention_norm": own.out["blocks.1.attention_norm"],
        "attention.output": own.out["blocks.1.attention.output"],
        "residual_mid": own.into["blocks.1.feed_forward_norm"],
        "feed_forward_norm": own.out["blocks.1.feed_forward_norm"],
        "feed_forward.hidden": own.into["blocks.1.feed_forward.contract"],
        "feed_forward.output": own.out["blocks.1.feed_forward"],
        "residual_out": own.out["blocks.1"],
    }
    assert [part["name"] for part in found["parts"]] == list(expected)
    for part in found["parts"]:
        vector = expected[part["name"]][3].double()
        close(part["vector"], vector)
        close([part["mean"], part["variance"]], torch.stack([vector.mean(), vector.var(unbiased=False)]))
    assert found["norm"] == ("LayerNorm" if family == "gpt2" else "RMSNorm")
    assert isinstance(own.model.final_norm, LayerNorm) == (family == "gpt2")


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_next_word_is_the_models_own_choice(client: TestClient, folders: dict[str, Path], family: str) -> None:
    own = Recorder(folders[family])
    found = ask(client, "next-word", model=family, temperature=0.7, top_k=30, top_p=0.9, seed=4)
    columns = next_token(own.logits[-1:], Sampling(0.7, 30, 0.9))
    for row in found["next"]:
        for name in ("logit", "scaled", "probability", "cumulative"):
            close(row[name], getattr(columns, name)[0, row["id"]])
        assert row["kept"] == bool(columns.kept[0, row["id"]])
    assert [row["drawn"] for row in found["next"]].count(True) == 1
    assert found["kept"] == int(columns.kept.sum())
    lens = ask(client, "lens", model=family)
    last = lens[f"blocks.{own.model.config.n_layers - 1}.residual_out"]
    close([word["probability"] for word in last], own.logits.softmax(dim=1).amax(dim=1))


def test_words_that_were_taken_stand_behind_the_text(client: TestClient, folders: dict[str, Path]) -> None:
    own = Recorder(folders["gpt2"])
    found = ask(client, "next-word", model="gpt2", more="260,17")
    ids = torch.cat([own.ids, torch.tensor([[260, 17]])], dim=1)
    with torch.no_grad():
        logits = own.model(ids)[0, -1]
    assert [piece["id"] for piece in found["written"]] == ids[0].tolist()
    close(found["next"][0]["logit"], logits.max())


def test_a_head_that_is_off_adds_nothing(client: TestClient, folders: dict[str, Path]) -> None:
    found = ask(client, "next-word", model="gpt2", off="1.2,0.0")
    own = Recorder(folders["gpt2"])
    for layer, head in ((1, 2), (0, 0)):
        output = own.model.get_submodule(f"blocks.{layer}.attention.output")
        with torch.no_grad():
            output.weight[:, head * 8 : (head + 1) * 8] = 0
    with torch.no_grad():
        without = own.model(own.ids)[0, -1]
    ids = [row["id"] for row in found["next"]]
    close([row["logit"] for row in found["next"]], without[ids])
    close(found["before"], own.logits[-1].softmax(dim=0)[ids])
    before, now = own.logits[-1].double().log_softmax(0), without.double().log_softmax(0)
    assert found["moved"] == pytest.approx(float((before.exp() * (before - now)).sum()), abs=1e-5)


def test_with_and_without_heads_words_are_chosen_alike(client: TestClient, folders: dict[str, Path]) -> None:
    found = ask(client, "next-word", model="gpt2", off="1.2", temperature=0.5, top_k=9)
    columns = next_token(Recorder(folders["gpt2"]).logits[-1:], Sampling(0.5, 9))
    close(found["before"], columns.probability[0, [row["id"] for row in found["next"]]])
    close([found["was"]["probability"]], columns.probability.amax(dim=1))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_many_texts_at_once_get_each_its_own_numbers(folders: dict[str, Path], family: str) -> None:
    texts = [f"{TEXT} {number}" * (1 + number % 3) for number in range(24)]

    def look(shelf: Shelf, text: str) -> Any:
        question = Question(shelf, QueryParams({"text": text, "layer": "1", "head": "1", "token": "2"}))
        return [DATA[view](question) for view in ("attention", "lens", "block", "embeddings")]

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(partial(look, Shelf(Runs([folders[family]]))), texts))
    alone = Shelf(Runs([folders[family]]))
    assert together == [look(alone, text) for text in texts]


def test_a_model_that_is_replaced_is_read_again_and_what_was_made_of_it_goes(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders["gpt2"], tmp_path / "run")
    shelf, kept = Shelf(Runs([tmp_path / "run"])), weakref.WeakSet[GPT]()
    file = tmp_path / "run/model.safetensors"
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(file), "part.safetensors")}
    file.rename(tmp_path / "run/part.safetensors")  # a folder of shards
    for _ in range(2 * OPEN):
        write_json(tmp_path / "run/model.safetensors.index.json", index)
        opened = shelf.open("run")
        assert opened is shelf.open("run")
        assert opened.model not in kept
        kept.add(opened.model)
        shelf.trace("run", "", TEXT)
        vocabulary(shelf, "run", "")
    del opened
    gc.collect()
    assert len(kept) == OPEN
    BPETokenizer.train([TEXT * 3], vocab_size=280).save(tmp_path / "run")
    assert tokens(shelf, "run", TEXT)["ways"][2]["vocab_size"] == Tokenizer.load(tmp_path / "run").vocab_size


def test_tokens_cover_the_text_in_every_way_to_cut_it(client: TestClient) -> None:
    ways = {way["key"]: way for way in ask(client, "tokens", model="gpt2", text="Zoë: 3 lamps\n")["ways"]}
    assert {"words", "characters", "model"} <= set(ways)
    for way in ways.values():
        content = bytes.fromhex("".join(token["hex"] for token in way["tokens"]))
        assert content.decode() == "Zoë: 3 lamps\n"
    found = ask(client, "tree", model="gpt2", way="model", piece=" lamp")
    assert "".join(root["text"] for root in found["roots"]) == " lamp"


def test_neighbours_and_the_map_are_of_the_models_vectors(client: TestClient, folders: dict[str, Path]) -> None:
    vectors = GPT.load(folders["gpt2"]).token_embedding.weight.detach()
    found = ask(client, "neighbours", model="gpt2", token=42)["neighbours"]
    close([one["cosine"] for one in found], F.cosine_similarity(vectors[[one["id"] for one in found]], vectors[42]))
    drawn = ask(client, "vocabulary", model="gpt2")
    assert len(drawn["points"]) == len(drawn["texts"]) == len(vectors)
    alike = torch.tensor(ask(client, "positions", model="gpt2")["alike"])
    table = F.normalize(GPT.load(folders["gpt2"]).position_embedding.weight.detach(), dim=1)  # type: ignore[arg-type]
    close(alike.tolist(), table @ table.mT)


# ---------------------------------------------------------------- training, classifier, assistant


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps, with its snapshots."""
    root = tmp_path_factory.mktemp("trained")
    documents = [Document(f"{TEXT} {TEXT}\n", str(i)) for i in range(20)]
    tokenizer = BPETokenizer.train([TEXT * 3], vocab_size=270)
    shards = write_shards({"train": documents, "val": documents[:2], "test": documents[:2]}, tokenizer, root / "shards")
    shape = ModelConfig(vocab_size=shards.vocab_size, context_length=16, d_model=8, n_layers=1, n_heads=1)
    config = FitConfig(steps=8, batch_size=2, dtype="float32", evaluate_share=0.25)
    train_language_model(shards, shape, config, 16, root / "run", resume=False)
    return root / "run"


@pytest.fixture
def training_client(trained: Path) -> Iterator[TestClient]:
    runs = Runs([trained])
    with TestClient(
        build(OpenModels(runs), pages=routes), base_url="http://127.0.0.1", raise_server_exceptions=False
    ) as client:
        yield client
    runs.close()


def test_every_page_can_look_at_a_checkpoint(training_client: TestClient, trained: Path) -> None:
    steps = [point["step"] for point in ask(training_client, "about")["checkpoints"]]
    assert steps == [0, 2, 4, 6, 8]
    untrained, last = (ask(training_client, "embeddings", checkpoint=f"step-0000000{i}") for i in (0, 8))
    assert untrained != last
    assert last == ask(training_client, "embeddings")
    logits = [ask(training_client, "next-word", checkpoint=name)["next"][0]["logit"] for name in snapshots(trained)]
    assert len(set(logits)) == 5


def test_a_run_in_the_making_is_followed(training_client: TestClient, trained: Path) -> None:
    found = ask(training_client, "training")
    assert [row[0] for row in found["train"]] == list(range(1, 9))
    assert len(found["val"]) == 4
    assert found["planned"] == 8
    assert "train" not in ask(training_client, "training", known=found["version"])
    with (trained / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"step": 9 + i, "split": "train", "loss": 1.0, "tokens": i}) + "\n" for i in range(4000)
        )
        file.write('{"step": 4009, "spl')  # a line that is just being written
    news = ask(training_client, "training", known=found["version"])
    assert news["train"][-1][0] == 4008
    assert len(news["train"]) <= POINTS + 1
    assert news["quiet"] < 60


def test_a_run_without_a_model_yet_is_seen_by_its_newest_weights(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    runs = Runs([folder])
    with TestClient(build(OpenModels(runs), pages=routes), base_url="http://127.0.0.1") as client:
        assert ask(client, "about")["kind"] == "in training"
        now = ask(client, "embeddings")
        assert now == ask(client, "embeddings", checkpoint="step-00000008")
    runs.close()


def test_words_that_moved_the_label_are_measured_by_leaving_them_out(
    client: TestClient, folders: dict[str, Path]
) -> None:
    found = ask(client, "moved", model="classifier", message="Ben has the red lamp")
    model, tokenizer = Classifier.load(folders["classifier"]), Tokenizer.load(folders["classifier"])

    def probability(text: str) -> float:
        rows = encode_texts([text], tokenizer, 64)
        return float(predict(model, rows, tokenizer.end_of_text)[0, model.labels.index(found["about"])])

    assert [word["text"] for word in found["words"]] == ["Ben ", "has ", "the ", "red ", "lamp"]
    without = probability("Ben has red lamp")
    assert found["words"][2]["moved"] == pytest.approx(probability("Ben has the red lamp") - without, abs=1e-6)
    assert sum(found["probabilities"]) == pytest.approx(1, abs=1e-5)


def test_a_word_of_a_long_text_is_left_out_and_nothing_else(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pellucid.see.views.classifier.WORDS", 2)
    found = ask(client, "moved", model="classifier", message="Ben has the red lamp")
    assert [word["text"] for word in found["words"]] == ["Ben ", "has "] and found["cut"]
    without = ask(client, "moved", model="classifier", message="has the red lamp")
    place = found["labels"].index(found["about"])
    expected = found["probabilities"][place] - without["probabilities"][place]
    assert found["words"][0]["moved"] == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("template", [None, CHAT_TEMPLATE, "{{ messages }} of somebody else"])
def test_server_and_workbench_agree_who_is_an_assistant(
    folders: dict[str, Path], tmp_path: Path, template: str | None
) -> None:
    tokenizer = Tokenizer.load(folders["gpt2"])
    ensure_role_tokens(tokenizer)
    tokenizer.chat_template = template
    run = save(tmp_path / "run", GPT.load(folders["gpt2"]), tokenizer)
    runs = Runs([run])
    expected = "assistant" if template == CHAT_TEMPLATE else "language model"
    assert Shelf(runs).kind("run") == OpenModels(runs).kind("run") == expected
    runs.close()


def test_training_examples_are_shown_of_the_very_file_that_was_trained_on(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    run, data = tmp_path / "run", tmp_path / "private.json"
    shutil.copytree(folders["gpt2"], run)
    shelf = Shelf(Runs([run]))
    assert examples(shelf, "run", 0) == {"count": 0}
    write_json(data, [{"instruction": "Say a secret.", "input": "", "output": "42"}])
    for claimed in ({}, {"private.json": "0" * 64}, None):  # whoever wrote this run.json has not had the file
        write_json(run / "run.json", {"config": {"data": str(data)}, "data": claimed})
        assert examples(shelf, "run", 0) == {"count": 0}
    write_json(run / "run.json", {"config": {"data": str(data)}, "data": {"private.json": sha256(data)}})
    assert examples(shelf, "run", 0)["instruction"] == "Say a secret."
    write_json(data, [{"instruction": "Something else.", "input": "", "output": "1"}])
    assert examples(shelf, "run", 0) == {"count": 0}
    write_json(run / "run.json", {"config": {"data": "\0.json"}})
    assert examples(shelf, "run", 0) == {"count": 0}


def test_the_mask_is_that_of_training(client: TestClient, folders: dict[str, Path]) -> None:
    found = ask(client, "mask", model="gpt2", instruction="Who has it?", input="<|assistant|> Ben", output="Ben.")
    tokenizer = Tokenizer.load(folders["gpt2"])
    ids, trained = Example("Who has it?", "<|assistant|> Ben", "Ben.").whole().encode(tokenizer)
    assert [token["id"] for token in found["tokens"]] == ids
    assert [token["trained"] for token in found["tokens"]] == trained
    assert found["trained"] == sum(trained) < len(ids)


# ---------------------------------------------------------------- pages, files, hostile questions


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.address)
def test_a_page_says_what_is_seen_and_links_to_the_code(client: TestClient, page: Any) -> None:
    answer = client.get(f"/{page.address}", params={"text": ATTACK, "model": ATTACK})
    assert answer.status_code == 200
    assert 2 <= len(re.findall(r"[.!?](?:\s|$)", page.about)) <= 3
    assert "alert(1)" not in answer.text
    links = re.findall(r'href="(/code/[^"#]*)#L(\d+)"', answer.text)
    assert len(links) == len(NAMES[page.address].split()) > 0
    for (link, line), name in zip(links, NAMES[page.address].split(), strict=True):
        code = client.get(link.replace("&amp;", "&"))
        assert code.status_code == 200
        assert f'id="L{line}"' in code.text
        assert re.search(rf"(def|class) {name.split(':')[1].split('.')[-1]}\b", code.text)


def test_source_is_text_and_nothing_but_the_packages_own(client: TestClient) -> None:
    shown = client.get("/code/see/html.py").text
    assert "&lt;" in shown
    assert not re.search(r"<(?!/?(html|head|meta|title|link|body|main|h1|pre|span|small|!doctype)\b)", shown)
    for name in ("../pyproject.toml", "..%2f..%2fetc/passwd", "/etc/passwd", "see/templates/see.html", ""):
        assert client.get(f"/code/{name}").status_code == 404
    for lines in ("1-" + "9" * 5000, "-", "2-1", "x"):
        assert client.get("/code/see/html.py", params={"lines": lines}).status_code == 200
    for name in ("..%2fsource.py", "source.py", ".", "workbench.html"):
        assert client.get(f"/web/{name}").status_code == 404
    assert place("model.gpt:GPT.logits").file == "model/gpt.py"


def test_scripts_write_no_markup_and_load_nothing_from_elsewhere() -> None:
    scripts = {path.name: path.read_text(encoding="utf-8") for path in WEB.iterdir()}
    assert len(scripts) > 10
    for name, text in scripts.items():
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), name
        assert set(re.findall(r"https?://[^\"'\s>]*", text)) <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(r"@import|url\(", text), name


@pytest.mark.parametrize(
    ("view", "asked"),
    [
        ("about", {"model": "../gpt2"}),
        ("about", {"checkpoint": "../../model"}),
        ("about", {"text": "x" * (LONGEST + 1)}),
        ("attention", {"layer": 99}),
        ("attention", {"head": -1}),
        ("attention", {"layer": "one"}),
        ("attention", {"dropout": "nan"}),
        ("attention", {"dropout": 1}),
        ("attention", {"seed": 10**28}),
        ("attention", {"layer": "9" * 5000}),
        ("block", {"token": 4000}),
        ("block", {"layer": "1e9"}),
        ("neighbours", {"token": 10**30}),
        ("next-word", {"temperature": -1}),
        ("next-word", {"temperature": "inf"}),
        ("next-word", {"top_p": 0}),
        ("next-word", {"off": "9.9"}),
        ("next-word", {"off": "1.2.3"}),
        ("next-word", {"more": "1,x"}),
        ("next-word", {"more": "-1"}),
        ("next-word", {"more": "999999999999999999999"}),
        ("tree", {"way": "words", "piece": "a"}),
        ("tree", {"way": "model", "piece": "a" * 101}),
        ("tree", {"way": "model", "piece": ""}),
        ("moved", {"message": "a"}),
        ("nothing", {}),
    ],
)
def test_a_bad_question_is_refused_in_a_sentence(client: TestClient, view: str, asked: dict[str, Any]) -> None:
    answer = client.get(f"/data/{view}", params=asked)
    assert 400 <= answer.status_code < 500, answer.text
    assert len(answer.json()["error"]["message"]) > 10


@pytest.mark.parametrize("text", ["", ATTACK, "\ud800", "\x00\x07\u2028", "🙂é " * 30, "%00%ff"])
@pytest.mark.parametrize("view", ["about", "tokens", "attention", "next-word", "mask"])
def test_any_text_is_shown_as_it_is(client: TestClient, view: str, text: str) -> None:
    asked = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    answer = client.get(f"/data/{view}", params={"text": asked, "instruction": asked or "a", "output": "b"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    if view == "tokens":
        assert answer.json()["text"] == asked
