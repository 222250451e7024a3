"""One contender of generate.py, measured once: `python contenders.py NAME '{"model": …, "dtype": …, …}'` prints JSON.

A process of its own, so that each may have another Python, its threads are its own, and its memory is its peak. All get
the same ids, choose greedily, and go on past end-of-text, so that all make the same number of tokens.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def prompts_of(asked: Json) -> list[list[int]]:
    """As many prompts as the batch has rows, each with ids of its own."""
    return [[(7 * row + 31 * place + 5) % 50000 for place in range(asked["prompt"])] for row in range(asked["batch"])]


def pellucid(asked: Json) -> Iterator[list[int]]:
    """The fast reader, which does not read ahead here; the likeliest are drawn as `generate` draws them."""
    from pellucid.generation.decoder import load_decoder
    from pellucid.generation.fast import FastReader
    from pellucid.generation.sampling import GREEDY, draw

    quantised = Path(asked["model"], asked["dtype"])  # of `pellucid quantize`
    folder = quantised if quantised.exists() else asked["model"]
    model = load_decoder(folder, asked["dtype"], asked["threads"], asked["device"])
    reader = FastReader(model, look_ahead=False)
    reader.read([[1, 2]])  # compiled code comes from the disk
    yield []
    chosen = draw(reader.read(prompts_of(asked)), GREEDY, None, []).tolist()
    while True:
        yield chosen
        chosen = draw(reader.step(chosen), GREEDY, None, []).tolist()


def transformers(asked: Json) -> Iterator[list[int]]:
    """Its model with its own cache, called token by token: faster than its `generate`."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(asked["threads"])
    model = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=getattr(torch, asked["dtype"])).eval()
    model.to(asked["device"])
    with torch.inference_mode():
        model(torch.tensor([[1, 2]], device=model.device))
        yield []
        found = model(torch.tensor(prompts_of(asked), device=model.device), use_cache=True, logits_to_keep=1)
        while True:
            chosen = found.logits[:, -1].argmax(dim=1)
            yield chosen.tolist()
            found = model(chosen[:, None], past_key_values=found.past_key_values, use_cache=True)


def llms_from_scratch(asked: Json) -> Iterator[list[int]]:
    """Its GPT-2 with a cache, of the same shape and with weights of its own: they do not change the speed."""
    import torch
    from llms_from_scratch.kv_cache.gpt2 import GPTModel
    from llms_from_scratch.kv_cache.utils import KVCache

    torch.set_num_threads(asked["threads"])
    shape = {"vocab_size": 50257, "context_length": 1024, "emb_dim": 768, "n_heads": 12, "n_layers": 12}
    model = GPTModel({**shape, "drop_rate": 0.0, "qkv_bias": True}).to(getattr(torch, asked["dtype"])).eval()
    with torch.inference_mode():
        yield []
        cache = KVCache(n_layers=12)
        logits = model(torch.tensor(prompts_of(asked)), cache=cache)
        while True:
            chosen = logits[:, -1].argmax(dim=1)
            yield chosen.tolist()
            logits = model(chosen[:, None], cache=cache)


def litgpt(asked: Json) -> Iterator[list[int]]:
    """Its model with its cache, of the same sizes, weights of its own (positions are rotary: it has no learnt ones)."""
    import torch
    from litgpt import GPT, Config

    torch.set_num_threads(asked["threads"])
    config = Config(
        name="gpt2", block_size=1024, vocab_size=50257, padded_vocab_size=50257, n_layer=12, n_head=12, n_embd=768,
        parallel_residual=False, bias=True, gelu_approximate="tanh", rotary_percentage=1.0,
    )  # fmt: skip
    model = GPT(config)
    model.lm_head.weight = model.transformer.wte.weight
    model = model.to(getattr(torch, asked["dtype"])).eval()
    place = asked["prompt"]
    model.max_seq_length = place + asked["tokens"]
    model.set_kv_cache(asked["batch"], dtype=getattr(torch, asked["dtype"]))
    with torch.inference_mode():
        yield []
        logits = model(torch.tensor(prompts_of(asked)), torch.arange(place))
        while True:
            chosen = logits[:, -1].argmax(dim=1)
            yield chosen.tolist()
            logits = model(chosen[:, None], torch.tensor([place]))
            place += 1


def ctranslate2(asked: Json) -> Iterator[list[int]]:
    """Its generator, on the folder converted by its own converter; tokens come by its callback, as they are made."""
    import queue
    import threading

    import ctranslate2 as library

    folder = Path(asked["model"], f"ctranslate2-{asked['dtype']}")
    if not folder.exists():
        options = ["--model", asked["model"], "--output_dir", str(folder), "--quantization", asked["dtype"]]
        code = "from ctranslate2.converters.transformers import main; main()"
        subprocess.run([sys.executable, "-c", code, *options], check=True, capture_output=True)
        told = folder / "config.json"  # a tokenizer without an unknown token is null there, which it cannot read
        text = told.read_text(encoding="utf-8").replace('_token": null', '_token": "<|endoftext|>"')
        told.write_text(text, encoding="utf-8")
    threads = {"intra_threads": asked["threads"], "inter_threads": 1}
    model = library.Generator(str(folder), compute_type=asked["dtype"], **threads)
    names = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    yield []
    made: queue.Queue[tuple[int, int]] = queue.Queue()  # rows come in any order
    prompts = [[names[token] for token in prompt] for prompt in prompts_of(asked)]

    def work() -> None:
        model.generate_batch(
            prompts, max_length=asked["tokens"], min_length=asked["tokens"], sampling_topk=1, beam_size=1,
            include_prompt_in_result=False, max_batch_size=0,
            callback=lambda step: made.put((step.batch_id, step.token_id)) or False,
        )  # fmt: skip

    threading.Thread(target=work).start()
    while True:
        step = dict(made.get(timeout=600) for _ in prompts)
        yield [step[row] for row in range(len(prompts))]


def llama_cpp(asked: Json) -> Iterator[list[int]]:
    """On the GGUF file of `pellucid export`; q8_0 and q4_0 made of it by its own quantisation, which is not timed."""
    import llama_cpp as library
    import numpy as np

    path = Path(asked["model"], "bfloat16.gguf" if asked["dtype"] == "bfloat16" else "float32.gguf")
    if asked["dtype"] in ("int8", "int4"):
        kind = "Q8_0" if asked["dtype"] == "int8" else "Q4_0"
        code = f"""import sys, llama_cpp as library
wish = library.llama_model_quantize_default_params(); wish.ftype = library.LLAMA_FTYPE_MOSTLY_{kind}
sys.exit(library.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), wish))"""
        path, whole = path.with_name(f"{kind}.gguf"), path
        if not path.exists():
            subprocess.run([sys.executable, "-c", code, str(whole), str(path)], check=True, capture_output=True)
    library.llama_backend_init()
    model = library.llama_model_load_from_file(str(path).encode(), library.llama_model_default_params())
    wish = library.llama_context_default_params()
    rows, most = asked["batch"], asked["prompt"] + asked["tokens"] + 2
    wish.n_ctx, wish.n_seq_max, wish.n_batch = rows * most, rows, max(1024, rows)
    wish.n_threads = wish.n_threads_batch = asked["threads"]
    context = library.llama_init_from_model(model, wish)
    vocabulary = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))
    batch = library.llama_batch_init(wish.n_batch, 0, 1)

    def read(pieces: list[tuple[int, int, int, bool]]) -> list[int]:
        """Put (row, place, id, wanted) through the model; the likeliest id after each that is wanted."""
        batch.n_tokens = len(pieces)
        for i, (row, place, token, wanted) in enumerate(pieces):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, place, 1, wanted
            batch.seq_id[i][0] = row
        if library.llama_decode(context, batch):
            raise SystemExit("llama_decode failed")
        logits = [library.llama_get_logits_ith(context, i) for i, piece in enumerate(pieces) if piece[3]]
        return [int(np.ctypeslib.as_array(one, (vocabulary,)).argmax()) for one in logits]

    yield []
    chosen = []
    for row, prompt in enumerate(prompts_of(asked)):
        last = len(prompt) - 1
        chosen += read([(row, place, token, place == last) for place, token in enumerate(prompt)])
    place = asked["prompt"]
    while True:
        yield chosen
        chosen = read([(row, place, token, True) for row, token in enumerate(chosen)])
        place += 1


def measure(contender: Callable[[Json], Iterator[list[int]]], asked: Json) -> Json:
    """Seconds to the first token, tokens a second after it, all rows together, and the peak of memory."""
    tokens = contender(asked)
    next(tokens)
    began = time.perf_counter()
    ids = [next(tokens)[0]]
    first = time.perf_counter()
    ids += [next(tokens)[0] for _ in range(asked["tokens"] - 1)]
    seconds = time.perf_counter() - first
    speed = asked["batch"] * (asked["tokens"] - 1) / seconds
    return {"first_s": first - began, "tokens_per_s": speed, "peak_MB": peak_memory(asked["device"]), "ids": ids[:16]}


def peak_memory(device: str) -> float:
    """MB at the most, of this program alone: what getrusage says begins with the peak of whoever started it."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / (1 << 20)
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)


if __name__ == "__main__":
    settings = json.loads(sys.argv[2])
    os.environ["OMP_NUM_THREADS"] = str(settings["threads"])
    print(json.dumps(measure(globals()[sys.argv[1]], settings)))
