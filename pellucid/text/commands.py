"""What the command line does with text: train a tokenizer, export it, write token shards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from pellucid.compute import usable_cores
from pellucid.options import Encode, TokenizerExport, TokenizerTrain
from pellucid.runtime import (
    ConfigError,
    explained_disk_errors,
    inform,
    problem,
)
from pellucid.text.bpe import BPETokenizer
from pellucid.text.counting import late_progress
from pellucid.text.documents import from_hugging_face, stream_documents
from pellucid.text.encode import encode_sources
from pellucid.text.held_out import Shares
from pellucid.text.pieces import PATTERNS
from pellucid.text.sources import Strip, describe, find_sources, named_by_content
from pellucid.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from pellucid.text.tokenizer_format import KINDS

Outcome = tuple[dict[str, Any], str]  # what --json prints, and what people read


OTHERS = ("config.json", "run.json", "shards.json", "*.safetensors")  # what is read by the tokenizer beside it


def require_place_for_tokenizer(out: Path) -> None:
    """ConfigError where `out` holds a model or shards: by another tokenizer their ids would mean other text."""
    if held := sorted(file.name for pattern in OTHERS for file in out.glob(pattern)):
        found = f"{held[0]}, and so a model or shards with a tokenizer of their own"
        raise ConfigError(problem(out, found, "a folder for a tokenizer alone", "Give another --out."))


def train_tokenizer(options: TokenizerTrain) -> Outcome:
    """`pellucid tokenizer train`."""
    require_place_for_tokenizer(options.out)
    if options.vocab_size < 1:
        found = str(options.vocab_size)
        raise ConfigError(problem("--vocab-size", found, "a whole number above 0", "4096 suits small models."))
    if options.kind != "bpe" and options.pattern != TokenizerTrain.pattern:
        advice = "Only byte pairs are learnt within pieces: give --kind bpe, or leave it out."
        raise ConfigError(problem("--pattern", f"--kind {options.kind}", "--kind bpe", advice))
    if "" in options.special_tokens:
        raise ConfigError(problem("--special-tokens", "an empty name", "such as <|name|>", "Leave it out for none."))
    sample = ""

    def texts() -> Iterator[str]:
        nonlocal sample
        files = stream_documents(options.files, text_field=None if options.dataset else options.text_field)
        streamed = from_hugging_face(options.dataset, text_field=options.text_field) if options.dataset else ()
        for document in chain(files if options.files or not options.dataset else (), streamed):
            sample = sample or document.text[:20_000]
            yield document.text

    special = (*SPECIAL_TOKENS, *options.special_tokens)
    if options.kind == "bpe":
        tokenizer: Tokenizer = BPETokenizer.train(texts(), options.vocab_size, options.pattern, special)
    else:
        tokenizer = KINDS[options.kind].train(texts(), vocab_size=options.vocab_size, special_tokens=special)
    tokenizer.save(options.out)
    ids = tokenizer.encode_ordinary(sample)
    ratio = len(sample.encode()) / max(1, len(ids))
    unknown = 0.0 if tokenizer.unknown_id is None else ids.count(tokenizer.unknown_id) / max(1, len(ids))
    result = {"out": str(options.out), "kind": options.kind, "vocab_size": tokenizer.vocab_size}
    result |= {"bytes_per_token": round(ratio, 3), "unknown_share": round(unknown, 4)}
    lost = f", {unknown:.1%} of them unknown: a larger --vocab-size knows more" if unknown else ""
    return result, (
        f"{options.out}: a {options.kind} tokenizer of {tokenizer.vocab_size:,} tokens, "
        f"{ratio:.2f} bytes a token{lost}.\n"
        f"Look at it: pellucid tokenizer show 'some text' --tokenizer {options.out}"
    )


def export_tokenizer(options: TokenizerExport) -> Outcome:
    """`pellucid tokenizer export`."""
    require_place_for_tokenizer(options.out)
    tokenizer = Tokenizer.load(options.tokenizer)
    tokenizer.save(options.out, options.to)
    result = {"out": str(options.out), "to": options.to, "vocab_size": tokenizer.vocab_size}
    text = f"{options.out}: {options.to} of {tokenizer.vocab_size:,} tokens."
    if options.to == "tiktoken":
        pattern = next((name for name, pattern in PATTERNS.items() if pattern == tokenizer.pattern), "its own")
        special = ", ".join(f"{name} = {token_id}" for name, token_id in tokenizer.special_tokens.items())
        result |= {"pattern": tokenizer.pattern, "special_tokens": tokenizer.special_tokens}
        text += f"\nWhat ranks do not say: the split pattern ({pattern}) and the special tokens ({special or 'none'})."
    return result, text


def encode(options: Encode) -> Outcome:
    """`pellucid encode`."""
    if options.workers < 0:
        raise ConfigError(problem("--workers", str(options.workers), "0 or more", "0 is one for each core."))
    tokenizer = Tokenizer.load(options.tokenizer)
    shares = Shares(options.val, options.test, options.seed)
    spool = options.out.with_name(f".{options.out.name}.input")  # for what can be read only once
    try:
        files: list[Path] = list(options.files)
        if options.dataset:
            files.append(keep_data_set(options.dataset, options.text_field, spool))
        strip: Strip = {"auto": "auto", "yes": True, "no": False}[options.strip_gutenberg]  # type: ignore[assignment]
        field = None if options.dataset else options.text_field
        sources = find_sources(files, strip, text_field=field, spool=spool)
        inform(describe(sources))
        workers = options.workers or usable_cores()
        shards = encode_sources(sources, tokenizer, options.out, shares, workers, options.engine)
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    counts = {name: len(shards.tokens(name)) for name in shards.splits}
    documents = {name: count for name in shards.splits if (count := shards.documents(name))}
    lines = [f"{name:>6}: {count:>9,} documents  {counts[name]:>14,} tokens" for name, count in documents.items()]
    return {"out": str(options.out), "tokens": counts}, "\n".join(
        [str(options.out), *lines, f"Next: pellucid pretrain --data {options.out} --out runs/my-model"]
    )


def keep_data_set(name: str, text_field: str | None, folder: Path) -> Path:
    """A Hugging Face data set, streamed into a file of its own: text is read twice."""
    path = folder / "data-set.jsonl"
    with explained_disk_errors(path), late_progress(f"fetching {name}") as tell:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            for rows, document in enumerate(from_hugging_face(name, text_field=text_field), 1):
                file.write(json.dumps({"text": document.text}) + "\n")
                tell(f"{rows:,} texts")
        return named_by_content(path)
