"""`pellucid serve` with many clients at once beside one client alone: `python benchmarks/serve.py [RUN]`.

Replies are asked for over HTTP on loopback, without a stream, as fast as they come: by one client, by 200 for a minute,
by one again. Each reply is compared with what the model says alone. RUN is a run folder (such as runs/quickstart);
without one, a model of the quickstart's shape with random weights.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from measure import machine, write

Json = dict[str, Any]
HEAD = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
TEMPERATURE, ROUNDING = 0.8, 1e-6
NAMES = ("Anna", "Ben", "the fox", "a lamp", "the red ball", "Mia", "the bird", "Tom")
PROMPTS = [f"{name} has {number} things and" for name in NAMES for number in range(8)]


def main() -> None:
    """Serve, ask, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--max-tokens", type=int, default=16)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run = arguments.run or random_model(Path(name) / "random")
        expected = alone(run, arguments.max_tokens)
        server = subprocess.Popen(
            [sys.executable, "-m", "pellucid", "serve", str(run), "--port", "0"], stderr=subprocess.PIPE, text=True
        )
        try:
            results = measure(server, run.resolve().name, expected, arguments)
        finally:
            server.terminate()
            server.wait(20)
    write("serve", {"machine": machine(), "run": str(arguments.run or "random"), **results})


def random_model(folder: Path) -> Path:
    """The quickstart's shape: two blocks of width 96, random weights large enough to say many things."""
    import torch

    from pellucid.config import ModelConfig
    from pellucid.model.gpt import GPT
    from pellucid.text.bpe import BPETokenizer
    from pellucid.text.tinyworld import documents

    texts = [document.text for document, _ in zip(documents(0), range(2000), strict=False)]
    tokenizer = BPETokenizer.train(texts, vocab_size=2000)
    torch.manual_seed(0)
    model = GPT(ModelConfig(vocab_size=tokenizer.vocab_size, context_length=128, d_model=96, n_layers=2, n_heads=4))
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save(folder)
    tokenizer.save(folder)
    return folder


def alone(run: Path, max_tokens: int) -> list[tuple[str, str]]:
    """What the model says to each prompt when nobody else asks; and how much of it no rounding can change.

    A product over more rows may round otherwise in its last bits. Where the number that was drawn lies as near as
    that to the border between two tokens, either may be chosen: there the certain beginning ends.
    """
    import torch

    from pellucid.compute import exact_products
    from pellucid.generation.engine import generate_samples, make_dice, prompt_ids
    from pellucid.generation.sampling import Sampling, next_token
    from pellucid.model.gpt import GPT
    from pellucid.text.tokenizer import Tokenizer

    exact_products()  # as the server's process does
    model, tokenizer = GPT.load(run), Tokenizer.load(run)
    found = []
    for seed, prompt in enumerate(PROMPTS):
        sampling, die = Sampling(TEMPERATURE), make_dice(seed, [0])[0]
        text = generate_samples(model, tokenizer, prompt, 1, max_tokens, sampling, seed)[0]
        ids, made, certain = prompt_ids(tokenizer, prompt), [], text
        for _ in range(max_tokens):
            with torch.inference_mode():
                logits = model(torch.tensor([[*ids, *made]]))[0, -1:, : tokenizer.vocab_size]
            ends = next_token(logits, sampling).probability[0].double().cumsum(0)
            point = die.random() * ends[-1]
            if (ends - point).abs().min() < ROUNDING:
                certain = tokenizer.decode(made).rstrip("\ufffd")
                break
            made.append(int(torch.searchsorted(ends, point, right=True)))
            if made[-1] == tokenizer.end_of_text:
                break
        found.append((text, certain))
    return found


def measure(
    server: subprocess.Popen[str], name: str, expected: list[tuple[str, str]], arguments: argparse.Namespace
) -> Json:
    """One client, many, one again."""
    assert server.stderr is not None
    said = server.stderr.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)", said)
    if found is None:
        raise SystemExit(said + server.stderr.read())
    port = int(found[1])
    bodies = [
        json.dumps(
            {
                "model": name,
                "prompt": prompt,
                "seed": seed,
                "temperature": TEMPERATURE,
                "max_tokens": arguments.max_tokens,
            }
        ).encode()
        for seed, prompt in enumerate(PROMPTS)
    ]
    ask = Asking(port, bodies, expected)
    ask.run(1, 3)  # until everything is loaded and warm
    quarter = arguments.seconds / 4
    before = ask.run(1, quarter)
    memory = [resident(port)]
    many: list[Json] = []
    for _ in range(4):
        many.append(ask.run(arguments.clients, quarter))
        memory.append(resident(port))
    after = ask.run(1, quarter)
    one = statistics.mean([before["replies_per_s"], after["replies_per_s"]])
    rate = statistics.mean(part["replies_per_s"] for part in many)
    return {
        "clients": arguments.clients,
        "one_client": [before, after],
        "many_clients": many,
        "times_one_client": round(rate / one, 2),
        "lost": sum(part["lost"] for part in many),
        "mixed_up": sum(part["mixed_up"] for part in many),
        "rounded_otherwise": sum(part["rounded_otherwise"] for part in many),
        "memory_MB_before_and_after_each_quarter": memory,
    }


class Asking:
    """Clients that ask again as soon as they are answered, each over a connection of its own."""

    def __init__(self, port: int, bodies: list[bytes], expected: list[tuple[str, str]]) -> None:
        self.port, self.bodies, self.expected = port, bodies, expected

    def run(self, clients: int, seconds: float) -> Json:
        """So many for so long."""
        return asyncio.run(self._run(clients, seconds))

    async def _run(self, clients: int, seconds: float) -> Json:
        self.replies = self.lost = self.mixed_up = self.rounded = 0
        self.waits: list[float] = []
        began = time.monotonic()
        await asyncio.gather(*(self._client(number, began + seconds) for number in range(clients)))
        took = time.monotonic() - began
        waits = sorted(self.waits) or [0.0]
        return {
            "replies": self.replies,
            "replies_per_s": round(self.replies / took, 1),
            "seconds": round(took, 1),
            "wait_s_median": round(statistics.median(waits), 4),
            "wait_s_p99": round(waits[len(waits) * 99 // 100], 4),
            "lost": self.lost,
            "mixed_up": self.mixed_up,
            "rounded_otherwise": self.rounded - self.mixed_up,
        }

    async def _client(self, number: int, until: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        turn = number
        while time.monotonic() < until:
            place = turn % len(self.bodies)
            turn += 7
            body, began = self.bodies[place], time.monotonic()
            head = f"{HEAD}Content-Length: {len(body)}\r\n\r\n"
            try:
                writer.write(head.encode() + body)
                header = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
                length = int(re.search(rb"content-length: (\d+)", header.lower())[1])  # type: ignore[index]
                content = json.loads(await asyncio.wait_for(reader.readexactly(length), 60))
                text = content["choices"][0]["text"]
            except (OSError, EOFError, TimeoutError, KeyError, TypeError, asyncio.IncompleteReadError):
                self.lost += 1
                return
            self.waits.append(time.monotonic() - began)
            self.replies += 1
            whole, certain = self.expected[place]
            self.mixed_up += text != whole and not (certain != whole and text.startswith(certain))
            self.rounded += text != whole
        writer.close()


def resident(port: int) -> float:
    """What the server's process holds, in MB, as /metrics says it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
        found = re.search(r"^process_resident_memory_bytes (\S+)", page.read().decode(), re.M)
    return round(float(found[1]) / 1e6, 1) if found else 0.0


if __name__ == "__main__":
    main()
