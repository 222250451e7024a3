"""pellucid import: from a hub that works and from hubs that don't, from folders, and round through transformers."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from pellucid.hub import NAMES
from pellucid.model.formats.folder import read_model_folder
from pellucid.model.gpt import GPT, folder_of
from pellucid.runtime import DataError
from pellucid.text.gpt2_files import byte_alphabet
from pellucid.text.tokenizer import Tokenizer
from tests.conftest import Cli
from tests.model.loopback_hub import COMMIT, REPO, Hub

WEIGHTS = "model.safetensors"
DATA = Path(__file__).parent / "data"


@pytest.fixture
def hub(base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    folder = tmp_path / "served"
    shutil.copytree(base_folder, folder)
    (folder / "pytorch_model.bin").write_bytes(b"never fetched")
    state = {"folder": folder, "requests": [], "fail": {}, "break_after": [], "lie": False}
    handler = type("OneHub", (Hub,), state)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return read_model_folder(folder)[1]


def assert_same_tensors(one: Path, other: Path) -> None:
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


# ---------------------------------------------------------------- the hub


def test_a_model_and_its_tokenizer_load_by_their_name_on_the_hub_and_then_from_the_cache(
    hub: type[Hub],
    base_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    model, tokenizer = GPT.load(REPO), Tokenizer.load(REPO)
    ids = torch.tensor([tokenizer.encode("Anna has the red lamp.")])
    assert torch.equal(model(ids), GPT.load(base_folder)(ids))
    assert "fetching" in capsys.readouterr().err
    hub.requests.clear()
    GPT.load(REPO), Tokenizer.load(REPO)
    assert not hub.requests and not capsys.readouterr().err


def test_a_tokenizer_alone_is_fetched_without_weights(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    Tokenizer.load(REPO)
    assert not any(request.startswith("GET") and WEIGHTS in request for request in hub.requests)
    GPT.load(REPO)  # the cache of a tokenizer is not taken for a model's
    assert any(request.startswith("GET") and WEIGHTS in request for request in hub.requests)


def test_gpt2s_tokenizer_is_fetched_where_it_is_not_at_hand(
    hub: type[Hub], base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PELLUCID_DATA", str(tmp_path))
    monkeypatch.setitem(NAMES, "gpt2", REPO)
    assert Tokenizer.load("gpt2").fingerprint() == Tokenizer.load(base_folder).fingerprint()


def test_two_at_once_fetch_a_model_once(
    hub: type[Hub], base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    at_once = hub.send

    def slowly(self: Hub, file: Path, body: bool) -> None:
        time.sleep(0.5 if body and file.name == WEIGHTS else 0)
        at_once(self, file, body)

    hub.send = slowly  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(folder_of, [REPO, REPO])
    assert one == other and (one / WEIGHTS).read_bytes() == (base_folder / WEIGHTS).read_bytes()
    assert len([request for request in hub.requests if request.startswith("GET") and WEIGHTS in request]) == 1


def test_a_mistyped_folder_never_asks_the_network(
    hub: type[Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for load in (GPT.load, Tokenizer.load):
        for where in ("runs/mistyped", Path("someone/tiny")):
            with pytest.raises(DataError):
                load(where)
    assert not hub.requests


def test_a_model_on_the_hub_becomes_a_run_folder_that_says_where_it_came_from(
    hub: type[Hub], call: Cli, base_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = call("import", REPO, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["revision"] == COMMIT
    assert_same_tensors(out, base_folder)
    text = "Anna has the red lamp."
    assert Tokenizer.load(out).encode(text) == Tokenizer.load(base_folder).encode(text)
    record = json.loads((out / "run.json").read_text())
    assert record["verb"] == "import" and record["config"]["source"] == REPO
    assert record["config"]["revision"] == COMMIT
    for name, digest in record["config"]["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert record["data"][WEIGHTS] == hashlib.sha256((base_folder / WEIGHTS).read_bytes()).hexdigest()
    assert not any("pytorch_model" in request for request in hub.requests)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "served"]
    settings = json.loads((out / "config.json").read_text())
    assert settings["eos_token_id"] == json.loads((base_folder / "config.json").read_text())["eos_token_id"]


def test_shards_are_fetched_by_their_index_and_nothing_beside_them(
    hub: type[Hub], call: Cli, base_folder: Path, tmp_path: Path
) -> None:
    AutoModelForCausalLM.from_pretrained(hub.folder).save_pretrained(hub.folder, max_shard_size="40kB")
    (hub.folder / WEIGHTS).unlink(missing_ok=True)
    (hub.folder / "consolidated.safetensors").write_bytes(b"never fetched")
    assert call("import", REPO, "--out", tmp_path / "run", "--revision", COMMIT).returncode == 0
    assert_same_tensors(tmp_path / "run", base_folder)
    assert not any("consolidated" in request for request in hub.requests)


def test_a_connection_that_breaks_off_once_is_taken_up_where_it_was(
    hub: type[Hub], call: Cli, base_folder: Path, tmp_path: Path
) -> None:
    hub.break_after = [20_000]
    assert call("import", REPO, "--out", tmp_path / "run").returncode == 0
    ranges = [request.split()[-1] for request in hub.requests if "bytes=" in request]
    assert len(ranges) == 1 and ranges[0].startswith("bytes=")
    assert_same_tensors(tmp_path / "run", base_folder)


def test_a_connection_that_goes_on_breaking_is_told_and_the_next_run_goes_on(
    hub: type[Hub], call: Cli, base_folder: Path, tmp_path: Path
) -> None:
    hub.break_after = [20_000, 1_000, 1_000]
    done = call("import", REPO, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "broke off" in done.stderr and "bytes are kept; the same command goes on from there" in done.stderr
    assert not (tmp_path / "run").exists()
    hub.requests.clear()
    assert call("import", REPO, "--out", tmp_path / "run").returncode == 0
    fetched = [request for request in hub.requests if request.startswith("GET") and "/resolve/" in request]
    assert len(fetched) == 1 and "bytes=" in fetched[0]
    assert_same_tensors(tmp_path / "run", base_folder)


def test_bytes_that_are_not_those_of_the_hash_are_thrown_away(hub: type[Hub], call: Cli, tmp_path: Path) -> None:
    hub.lie = True
    done = call("import", REPO, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert f"{WEIGHTS}: found SHA-256" in done.stderr and "thrown away" in done.stderr
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.rglob(f"{WEIGHTS}.part"))
    hub.lie = False
    assert call("import", REPO, "--out", tmp_path / "run").returncode == 0


def test_a_small_file_that_was_changed_on_its_way_is_found_by_gits_hash(
    hub: type[Hub], call: Cli, tmp_path: Path
) -> None:
    assert call("import", REPO, "--out", tmp_path / "one").returncode == 0
    waiting = tmp_path / ".run.download" / COMMIT[:12]
    waiting.mkdir(parents=True)
    content = (hub.folder / "config.json").read_bytes()
    (waiting / "config.json").write_bytes(content.replace(b"0.0", b"0.5"))
    assert call("import", REPO, "--out", tmp_path / "run").returncode == 0
    assert (tmp_path / "run/config.json").read_bytes() == (tmp_path / "one/config.json").read_bytes()


def test_a_hub_that_is_busy_for_a_moment_is_asked_again(hub: type[Hub], call: Cli, tmp_path: Path) -> None:
    hub.fail = {"/revision/main": [503], WEIGHTS: [503]}
    assert call("import", REPO, "--out", tmp_path / "run").returncode == 0


@pytest.mark.parametrize(
    ("what", "end", "statuses", "said"),
    [
        ("someone/else", "", [], "the answer 404 .*a model of that name.*no folder of that name here, either"),
        (REPO, "/revision/main", [401], "the answer 401 .*HF_TOKEN"),
        (REPO, "/revision/main", [403], "the answer 403 .*ask for access on its page"),
        (REPO, WEIGHTS, [401], f"{WEIGHTS}: found the answer 401 .*HF_TOKEN"),
        (REPO, WEIGHTS, [404], f"{WEIGHTS}: found the answer 404"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_message(
    hub: type[Hub], call: Cli, tmp_path: Path, what: str, end: str, statuses: list[int], said: str
) -> None:
    hub.fail = {end: statuses * 20} if end else {}
    done = call("import", what, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert re.search(said, done.stderr), done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_hub_that_stays_down_is_said_in_one_message(hub: type[Hub], call: Cli, tmp_path: Path) -> None:
    hub.fail = {"/revision/main": [503] * 20}
    done = call("import", REPO, "--out", tmp_path / "run")
    assert done.returncode == 2 and "overloaded or down" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_revision_that_is_not_there_is_named(hub: type[Hub], call: Cli, tmp_path: Path) -> None:
    done = call("import", REPO, "--out", tmp_path / "run", "--revision", "v9")
    assert done.returncode == 2 and "no revision 'v9'" in done.stderr


def test_a_model_with_pickled_weights_only_is_refused(hub: type[Hub], call: Cli, tmp_path: Path) -> None:
    (hub.folder / WEIGHTS).unlink()
    done = call("import", REPO, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "but pytorch_model.bin; expected weights as safetensors" in done.stderr and "--revision" in done.stderr


def test_what_is_no_hub_is_named(hub: type[Hub], call: Cli, tmp_path: Path) -> None:
    hub.list = lambda self, path: self.say(200, b"<html>log in to this network</html>")  # type: ignore[method-assign]
    done = call("import", REPO, "--out", tmp_path / "run")
    assert done.returncode == 2 and "Check HF_ENDPOINT" in done.stderr


def test_without_a_network_it_says_what_to_do(call: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        done = call("import", "gpt2", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "openai-community/gpt2: found no folder of that name here, and no connection to" in done.stderr
    assert "name that folder" in done.stderr and "HF_ENDPOINT" in done.stderr


# ---------------------------------------------------------------- folders


def test_import_to_transformers_and_back_keeps_every_bit(call: Cli, base_folder: Path, tmp_path: Path) -> None:
    one, saved, two = tmp_path / "one", tmp_path / "saved", tmp_path / "two"
    assert call("import", base_folder, "--out", one).returncode == 0
    AutoModelForCausalLM.from_pretrained(one).save_pretrained(saved)
    done = call("import", saved, "--out", two)
    assert done.returncode == 0 and "there is no tokenizer" in done.stderr
    assert_same_tensors(base_folder, two)
    assert (one / WEIGHTS).read_bytes() == (two / WEIGHTS).read_bytes()


def test_a_llama_of_transformers_keeps_every_bit(call: Cli, tmp_path: Path) -> None:
    pytest.importorskip("pellucid.model.formats.llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "theirs")
    assert call("import", tmp_path / "theirs", "--out", tmp_path / "run").returncode == 0
    AutoModelForCausalLM.from_pretrained(tmp_path / "run").save_pretrained(tmp_path / "again")
    first, again = load_file(tmp_path / "theirs" / WEIGHTS), load_file(tmp_path / "again" / WEIGHTS)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_openais_folder_with_a_tensorflow_checkpoint_becomes_a_run_folder(call: Cli, tmp_path: Path) -> None:
    source = tmp_path / "124M"
    shutil.copytree(DATA / "tensorflow", source)
    ids = {character: number for number, character in enumerate(byte_alphabet())} | {"<|endoftext|>": 256}
    (source / "encoder.json").write_text(json.dumps(ids))
    (source / "vocab.bpe").write_text("#version: 0.2\n")
    done = call("import", source, "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    model, tokenizer = GPT.load(tmp_path / "run"), Tokenizer.load(tmp_path / "run")
    assert model(torch.tensor([tokenizer.encode("Anna")])).shape == (1, 4, 257)
    assert json.loads((tmp_path / "run/config.json").read_text())["eos_token_id"] == 256
    assert "model.ckpt.index" in json.loads((tmp_path / "run/run.json").read_text())["data"]


def test_a_folder_that_holds_something_else_is_not_written_over(call: Cli, base_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = call("import", base_folder, "--out", tmp_path)
    assert done.returncode == 2 and "Give another --out" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_folder_in_which_one_is_cannot_be_replaced(
    call: Cli, base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("import", base_folder, "--out", ".")
    assert done.returncode == 2 and "such as the one you are in" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_earlier_import_may_be_made_again(call: Cli, base_folder: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert call("import", base_folder, "--out", tmp_path / "run").returncode == 0
    (tmp_path / "run" / "classifier").mkdir()
    done = call("import", base_folder, "--out", tmp_path / "run")
    assert done.returncode == 2 and "found classifier, which no import wrote" in done.stderr
    assert (tmp_path / "run" / "classifier").is_dir()


def test_a_tokenizer_that_we_cannot_use_is_kept_and_that_is_said(call: Cli, base_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(base_folder, source)
    content = json.loads((source / "tokenizer.json").read_text())
    content["model"]["type"] = "Unigram"
    (source / "tokenizer.json").write_text(json.dumps(content))
    done = call("import", source, "--out", tmp_path / "run")
    assert done.returncode == 0 and "of type Unigram" in done.stderr and "kept as they are" in done.stderr
    assert (tmp_path / "run/tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()


def test_a_model_with_a_tokenizer_that_only_its_library_reads_writes_text(
    call: Cli, base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    shutil.copytree(base_folder, source)
    content = json.loads((source / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "NFC"}
    (source / "tokenizer.json").write_text(json.dumps(content))
    done = call("import", source, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    said = call("generate", tmp_path / "run", "--prompt", "The fox", "--max-tokens", 8, "--temperature", 0, "--json")
    same = call("generate", base_folder, "--prompt", "The fox", "--max-tokens", 8, "--temperature", 0, "--json")
    assert json.loads(said.stdout)["text"] == json.loads(same.stdout)["text"]
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    done = call("import", source, "--out", tmp_path / "without")
    assert done.returncode == 0 and "pip install 'pellucid[foreign]'" in done.stderr


def shrink(folder: Path) -> None:
    content = load_file(folder / WEIGHTS)
    content["transformer.wte.weight"] = content["transformer.wte.weight"][:260].clone()
    save_file(content, folder / WEIGHTS)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"vocab_size": 260}))


def swell(folder: Path) -> None:
    content = load_file(folder / WEIGHTS)
    content["transformer.h.0.mlp.c_proj.weight"] *= 3e38
    save_file(content, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("spoil", "name", "said"),
    [
        (shrink, "", "belong together"),
        (swell, "", "logits that are no numbers"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"no"), "", "damaged file"),
        (lambda folder: (folder / "model.bin").write_bytes(b"no"), "model.bin", "It is pickled"),
        (lambda folder: None, "config.json", "Give its folder"),
        (lambda folder: None, "not/a/folder", "no such folder; expected a folder, gpt2"),
    ],
)
def test_what_cannot_be_imported_is_named_and_leaves_nothing(
    call: Cli, base_folder: Path, tmp_path: Path, spoil: Callable[[Path], object], name: str, said: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(base_folder, source)
    spoil(source)
    done = call("import", source / name, "--out", tmp_path / "run")
    assert done.returncode == 2 and said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
