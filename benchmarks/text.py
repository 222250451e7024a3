"""Tokenizers and shards beside tiktoken, tokenizers and rustbpe: `python benchmarks/text.py [DATA] [--only PART…]`.

DATA is a folder with gutenberg/*.txt and gpt2/ (PELLUCID_DATA where it is not given).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiktoken
import tokenizers
from measure import copy_rate, in_turn, machine, rates, run_process, write
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from pellucid.text.bpe import BPETokenizer
from pellucid.text.bpe_training import learn
from pellucid.text.pieces import PATTERNS
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.tokenizer_format import tokenizer_json

Json = dict[str, Any]
TEXT_BYTES = 8_700_000
TIKTOKEN_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
PELLUCID = Path(sys.executable).with_name("pellucid")

# What tiktoken's batch call needs around it to do what `pellucid encode` does: read, encode, write the ids.
TIKTOKEN_PROCESS = """
import sys
import numpy as np, tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
folder, source, target, pattern = sys.argv[1:]
ranks = data_gym_to_mergeable_bpe_ranks(folder + "/vocab.bpe", folder + "/encoder.json")
encoding = tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
text = open(source, encoding="utf-8").read()
size = len(text) // 16 + 1
batch = encoding.encode_ordinary_batch([text[i : i + size] for i in range(0, len(text), size)], num_threads=2)
np.concatenate([np.array(ids, dtype=np.uint16) for ids in batch]).tofile(target)
"""


def main() -> None:
    """Measure the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", default=os.environ.get("PELLUCID_DATA"))
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--gigabytes", type=float, default=3.0, help="text of the memory part")
    arguments = parser.parse_args()
    if not arguments.data:
        parser.error("give a folder with gutenberg/*.txt and gpt2/, or set PELLUCID_DATA")
    data = Path(arguments.data).resolve()
    os.environ["PELLUCID_DATA"] = str(data)
    results: Json = {"machine": machine()}
    for part in arguments.only:
        print(part, file=sys.stderr, flush=True)
        results[part] = PARTS[part](data, arguments.gigabytes)
    write("text", results)


def english(data: Path) -> str:
    """The first 8.7 MB of the books."""
    books = "".join(path.read_text(encoding="utf-8") for path in sorted((data / "gutenberg").glob("*.txt")))
    return books.encode()[:TEXT_BYTES].decode("utf-8", errors="ignore")


def of_tiktoken(data: Path) -> tiktoken.Encoding:
    """tiktoken's GPT-2 from local files."""
    ranks = data_gym_to_mergeable_bpe_ranks(str(data / "gpt2" / "vocab.bpe"), str(data / "gpt2" / "encoder.json"))
    return tiktoken.Encoding("gpt2", pat_str=TIKTOKEN_PATTERN, mergeable_ranks=ranks, special_tokens={})


def of_tokenizers() -> tokenizers.Tokenizer:
    """Hugging Face's tokenizers with our tokenizer.json of GPT-2."""
    import json

    return tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(Tokenizer.load("gpt2"))))


def encode(data: Path, _: float) -> Json:
    """8.7 MB of English to ids, GPT-2's vocabulary, one thread."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    text, size = english(data), TEXT_BYTES / 1e6
    ours, tik, theirs = Tokenizer.load("gpt2"), of_tiktoken(data), of_tokenizers()
    assert ours.encode_arrays([text])[0].tolist() == tik.encode_ordinary(text)
    found = rates(
        in_turn(
            {
                "pellucid": lambda: ours.encode_arrays([text]),
                "pellucid, as a list": lambda: ours.encode_ordinary(text),
                "tiktoken": lambda: tik.encode_ordinary(text),
                "tiktoken, to NumPy": lambda: tik.encode_to_numpy(text),
            }
        ),
        size,
        "MB_per_s",
    )
    small = text[:1_000_000]
    slow = in_turn({"pellucid": lambda: ours.encode_arrays([small]), "tokenizers": lambda: theirs.encode(small)}, 3)
    found["one megabyte"] = rates(slow, len(small.encode()) / 1e6, "MB_per_s")
    found["floor_MB_per_s"] = round(copy_rate() * 1e3 / 2)  # reading a byte of text and writing about one of ids
    return found


def decode(data: Path, _: float) -> Json:
    """The ids of 8.7 MB of English back to text."""
    text, size = english(data), TEXT_BYTES / 1e6
    ours, tik = Tokenizer.load("gpt2"), of_tiktoken(data)
    array = ours.encode_arrays([text])[0]
    ids = array.tolist()
    assert ours.decode(ids) == ours.decode(array) == tik.decode(ids) == text
    contenders: dict[str, Callable[[], Any]] = {
        "pellucid": lambda: ours.decode(ids),
        "pellucid, from an array": lambda: ours.decode(array),
        "tiktoken": lambda: tik.decode(ids),
    }
    return rates(in_turn(contenders), size, "MB_per_s")


def train(data: Path, _: float) -> Json:
    """32,768 merges from 8.7 MB of English; each library with its own counting and all its threads."""
    import rustbpe

    text, merges, pattern = english(data), 32_768, PATTERNS["gpt2"]

    def by_rustbpe() -> None:
        rustbpe.Tokenizer().train_from_iterator(iter([text]), merges + 256, pattern=pattern)

    def by_tokenizers() -> None:
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=merges + 256, initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator([text], trainer)

    contenders: dict[str, Callable[[], Any]] = {
        "pellucid": lambda: learn([text], merges, pattern),
        "pellucid, to a tokenizer": lambda: BPETokenizer.train([text], merges + 256),
        "rustbpe": by_rustbpe,
        "tokenizers": by_tokenizers,
    }
    return rates(in_turn(contenders, 5), 1, "runs_per_s")


def process(data: Path, _: float) -> Json:
    """100 MB of text to shards, whole processes, two cores."""
    with tempfile.TemporaryDirectory() as folder:
        source, ids, shards = Path(folder, "text.txt"), Path(folder, "ids.bin"), Path(folder, "shards")
        write_text(source, data, 100_000_000)
        theirs = [sys.executable, "-c", TIKTOKEN_PROCESS, str(data / "gpt2"), str(source), str(ids), TIKTOKEN_PATTERN]
        ours = [str(PELLUCID), "encode", str(source), "--tokenizer", "gpt2", "--out", str(shards)]
        peaks: dict[str, list[float]] = {"pellucid": [], "tiktoken": []}
        contenders = {
            "pellucid": lambda: peaks["pellucid"].append(run_process(ours)[1]),
            "tiktoken": lambda: peaks["tiktoken"].append(run_process(theirs)[1]),
        }
        found = rates(in_turn(contenders, 5), 100, "MB_per_s")
        found["peak_MB"] = {name: round(statistics.median(values)) for name, values in peaks.items()}
    return found


def memory(data: Path, gigabytes: float) -> Json:
    """Peak memory of encoding and training on gigabytes of text: text of many documents, as jsonl and as one file."""
    found: Json = {"gigabytes": gigabytes}
    with tempfile.TemporaryDirectory(dir=os.environ.get("PELLUCID_SCRATCH")) as folder:
        source, shards = Path(folder, "text.txt"), Path(folder, "shards")
        for kind, separator in (("one document", "\n\n"), ("many documents", "\n<|endoftext|>\n")):
            write_text(source, data, int(gigabytes * 1e9), separator)
            encode_it = [str(PELLUCID), "encode", str(source), "--tokenizer", "gpt2", "--out", str(shards)]
            seconds, peak = run_process(encode_it)
            found[f"encode, {kind}"] = {"seconds": round(seconds, 1), "peak_MB": round(peak)}
            shutil.rmtree(shards)
        train_it = [str(PELLUCID), "tokenizer", "train", str(source), "--vocab-size", "32768", "--out", str(shards)]
        seconds, peak = run_process(train_it)
        found["train"] = {"seconds": round(seconds, 1), "peak_MB": round(peak)}
    return found


def write_text(path: Path, data: Path, size: int, separator: str = "\n\n") -> None:
    """Text of `size` bytes: paragraphs of the books in random order, words now and then replaced by new ones."""
    chance = random.Random(0)
    books = "".join(book.read_text(encoding="utf-8") for book in sorted((data / "gutenberg").glob("*.txt")))
    paragraphs = [part for part in books.split("\n\n") if len(part) > 40]
    written = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        while written < size:
            new = "".join(chance.choices("abcdefghijklmnop", k=8))  # distinct words grow with the text, as in real ones
            written += file.write(f"{chance.choice(paragraphs)} {new}{separator}")


def cold(data: Path, _: float) -> Json:
    """The first call of all on a machine, with nothing compiled yet, beside later processes."""
    code = (
        "import sys, time; sys.path[:0] = []\n"
        "from pellucid.text.tokenizer import Tokenizer\n"
        "from pellucid.text.bpe import BPETokenizer\n"
        "tokenizer = Tokenizer.load('gpt2'); text = open(sys.argv[1], encoding='utf-8').read()\n"
        "began = time.perf_counter(); tokenizer.encode_arrays([text]); encoded = time.perf_counter()\n"
        "BPETokenizer.train([text], 1000); print(encoded - began, time.perf_counter() - encoded)"
    )
    import subprocess

    found: Json = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "text.txt")
        source.write_text(english(data)[:1_200_000], encoding="utf-8")
        for name in ("nothing compiled", "compiled before"):
            environment = os.environ | {"NUMBA_CACHE_DIR": folder}
            done = subprocess.run(
                [sys.executable, "-c", code, str(source)], check=True, capture_output=True, text=True, env=environment
            )
            first_encode, first_train = map(float, done.stdout.split())
            found[name] = {"encode_s": round(first_encode, 2), "train_s": round(first_train, 2)}
    return found


PARTS: dict[str, Callable[[Path, float], Json]] = {
    "encode": encode,
    "decode": decode,
    "train": train,
    "process": process,
    "memory": memory,
    "cold": cold,
}

if __name__ == "__main__":
    main()
