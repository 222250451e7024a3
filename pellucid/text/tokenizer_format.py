"""tokenizer.json and tokenizer_config.json, two-way, so that `tokenizers` and `transformers` give the same ids.

All three kinds are expressible there: BPE as it is, words and characters as a WordLevel model behind a Split. What the
format can say and our tokenizers cannot do (normalisation, prefixes, fallback) is refused by name, not ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import regex
from rich.cells import cell_len

from pellucid import hub
from pellucid.runtime import DataError, inform, problem, read_json, write_json, write_text
from pellucid.text.bpe import BPETokenizer
from pellucid.text.character import CharacterTokenizer
from pellucid.text.foreign import ForeignTokenizer
from pellucid.text.gpt2_files import (
    FILE_PAIRS,
    build_bpe,
    check_vocabulary,
    find_file_pair,
    gpt2_if_at_hand,
    load_file_pair,
    parse_merges,
    save_file_pair,
    spell,
    spelt,
)
from pellucid.text.pieces import PATTERNS
from pellucid.text.rank_files import load_ranks, save_ranks
from pellucid.text.tokenizer import END_OF_TEXT, UNKNOWN, Format, Tokenizer
from pellucid.text.word import WordTokenizer

Json = dict[str, Any]
KINDS: dict[str, type[BPETokenizer] | type[CharacterTokenizer]] = {
    "char": CharacterTokenizer,
    "word": WordTokenizer,
    "bpe": BPETokenizer,
}
READABLE_COLUMN = 20  # cells for a token in vocab.txt; the few that are longer push their line to the right
UNLIMITED = 10**12  # transformers writes 10**30 where a tokenizer has no longest input


# ---------------------------------------------------------------- writing


def save_tokenizer(tokenizer: Tokenizer, folder: Path, to: Format = "tokenizer.json") -> None:
    """Write the tokenizer's files into `folder`, which may hold other files; each is written whole or not at all."""
    if to != "tokenizer.json":
        {"vocab-merges": save_file_pair, "tiktoken": save_ranks}[to](tokenizer, folder)
        return
    write_text(folder / "vocab.txt", readable_vocabulary(tokenizer))
    write_json(folder / "tokenizer_config.json", tokenizer_config(tokenizer))
    write_json(folder / "tokenizer.json", tokenizer_json(tokenizer))
    (folder / "chat_template.jinja").unlink(missing_ok=True)  # it would win over tokenizer_config.json


def tokenizer_json(tokenizer: Tokenizer) -> Json:
    """The content of tokenizer.json."""
    if isinstance(tokenizer, ForeignTokenizer):
        return tokenizer.content
    names = {token_id: name for name, token_id in tokenizer.special_tokens.items()}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": token_id, "content": names[token_id], **flags} for token_id in sorted(names)]
    is_bpe = tokenizer.kind == "bpe"
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": _pre_tokenizer(tokenizer),
        "post_processor": None,
        "decoder": _byte_level(add_prefix_space=True) if is_bpe else {"type": "Fuse"},
        "model": _bpe_model(tokenizer) if is_bpe else _word_level_model(tokenizer),
    }


def _pre_tokenizer(tokenizer: Tokenizer) -> Json:
    """As in GPT-2's file, and for other patterns as in Llama 3's: what tools look at to tell how text is split."""
    if tokenizer.kind == "bpe" and tokenizer.pattern == PATTERNS["gpt2"]:
        return _byte_level()
    split = {"type": "Split", "pattern": {"Regex": tokenizer.pattern}, "behavior": "Isolated", "invert": False}
    if tokenizer.kind == "bpe":
        return {"type": "Sequence", "pretokenizers": [split, _byte_level(use_regex=False)]}
    return split


def _byte_level(add_prefix_space: bool = False, use_regex: bool = True) -> Json:
    options = {"add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": use_regex}
    return {"type": "ByteLevel", **options}


def _bpe_model(tokenizer: Tokenizer) -> Json:
    vocabulary, merges = spelt(tokenizer)
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": merges,
    }


def _word_level_model(tokenizer: Tokenizer) -> Json:
    vocabulary = sorted(tokenizer.vocab().items(), key=lambda item: item[1])
    return {"type": "WordLevel", "vocab": dict(vocabulary), "unk_token": UNKNOWN}


def tokenizer_config(tokenizer: Tokenizer) -> Json:
    """The content of tokenizer_config.json."""
    end = tokenizer.end_of_text_name if tokenizer.end_of_text_name in tokenizer.special_tokens else None
    config: Json = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokenizer.begin_of_text_name or end,
        "eos_token": end,
        "unk_token": UNKNOWN if tokenizer.unknown_id is not None else None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
    }
    if tokenizer.model_max_length is not None:
        config["model_max_length"] = tokenizer.model_max_length
    if tokenizer.chat_template is not None:
        config["chat_template"] = tokenizer.chat_template
    return config


def readable_vocabulary(tokenizer: Tokenizer) -> str:
    """The vocabulary for people, a token a line: id, token, how often training met it, the two it was merged from."""
    parents = tokenizer.parents() if isinstance(tokenizer, BPETokenizer) else {}
    special = set(tokenizer.special_tokens.values())
    shown = [_shown(tokenizer.token_bytes(token_id)) for token_id in range(tokenizer.vocab_size)]
    counts = {token_id: f"{count:,}" for token_id, count in tokenizer.counts.items()}
    widest = max(map(len, counts.values()), default=0)
    lines = []
    for token_id, token in enumerate(shown):
        line = f"{token_id:6}  {token}{' ' * (READABLE_COLUMN - cell_len(token))}"
        line += f"  {counts.get(token_id, ''):>{widest}}" if counts else ""
        line += "  (special)" if token_id in special else ""
        if token_id in parents:
            left, right = parents[token_id]
            line += f"  = {shown[left]} + {shown[right]}"
        lines.append(line.rstrip() + "\n")
    return "".join(lines)


def _shown(token: bytes) -> str:
    """As Python writes it: control characters escaped, and bytes where a token is no whole character."""
    try:
        return repr(token.decode("utf-8"))
    except UnicodeDecodeError:
        return repr(token)


# ---------------------------------------------------------------- reading


def load_tokenizer(where: str | Path) -> Tokenizer:
    """See `Tokenizer.load`."""
    if str(where) == "gpt2" and (gpt2 := gpt2_if_at_hand()) is not None:
        return gpt2
    path = Path(where)
    name, mark, encoding = str(where).rpartition("#")
    if mark and not path.exists():
        return load_ranks(Path(name), encoding)
    if path.is_dir():
        return _load_folder(path)
    if repo := hub.meant_by(where):
        return _load_folder(hub.cached(repo, "tokenizer", hub.tokenizer_files))
    if not path.is_file():
        advice = 'Name "gpt2", a model of the hub as owner/name, a run folder, a tokenizer.json or a .tiktoken file.'
        raise DataError(problem(path, "no file or folder", "a tokenizer", advice))
    if path.suffix == ".tiktoken":
        return load_ranks(path, path.stem)
    for vocabulary, merges in FILE_PAIRS:
        if path.name in (vocabulary, merges):
            return load_file_pair(path.parent / vocabulary, path.parent / merges)
    return _with_config(read_tokenizer_json(path), path.parent)


def _load_folder(folder: Path) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        return _with_config(read_tokenizer_json(folder / "tokenizer.json"), folder)
    pair = find_file_pair(folder)
    if pair is None:
        expected = "tokenizer.json, or vocab.json + merges.txt, or encoder.json + vocab.bpe"
        raise DataError(problem(folder, "no tokenizer", expected, "Name the folder that holds them."))
    return _with_config(load_file_pair(*pair), folder)


def read_tokenizer_json(path: Path) -> Tokenizer:
    """A tokenizer of any of the three kinds out of a tokenizer.json."""
    content = read_json(path)
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        raise DataError(problem(path, "no model in it", "a tokenizer.json", "The file is damaged or of another kind."))
    model_type = model.get("type", "BPE" if "merges" in model else "none")
    if model_type not in ("BPE", "WordLevel"):
        expected = "BPE or WordLevel"
        raise DataError(problem(path, f"a tokenizer of type {model_type}", expected, "This kind cannot be used here."))
    ids, special = _vocabulary(content, model, path)
    if model_type == "WordLevel":
        _refuse(content.get("normalizer"), "a normalizer", path)
        return _read_word_level(content, model, ids, special, path)
    if model.get("dropout"):
        _refuse(model["dropout"], "dropout", path)
    try:
        return _read_bpe(content, model, ids, special, path)
    except _ForeignError:
        return ForeignTokenizer(content, ids, special, path)


class _ForeignError(DataError):
    """Byte pairs by rules that ours do not know; those of `tokenizers` do."""


def _refuse(value: object, name: str, path: Path, kind: type[DataError] = DataError) -> None:
    if value:
        expected = "a tokenizer without it"
        raise kind(problem(path, f"{name} ({str(value)[:80]})", expected, "It would change the ids."))


def _vocabulary(content: Json, model: Json, path: Path) -> tuple[dict[str, int], dict[str, int]]:
    """All tokens, and those of them that are special (added tokens, as `tokenizers` calls them)."""
    raw = model.get("vocab")
    special: dict[str, int] = {}
    added = content.get("added_tokens") or []
    for token in added if isinstance(added, list) else [added]:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str) or "id" not in token:
            advice = "The file is damaged."
            raise DataError(problem(path, f"the added token {token!r}", "content and id", advice))
        special[token["content"]] = token["id"]
    if not isinstance(raw, dict):
        check_vocabulary(raw, path)
    assert isinstance(raw, dict)
    for name, token_id in special.items():
        if raw.get(name, token_id) != token_id:
            found = f"{name!r} with the ids {raw[name]} and {token_id}"
            raise DataError(problem(path, found, "one id for a token", "The file is damaged."))
    return check_vocabulary(raw | special, path), special


def _read_word_level(
    content: Json, model: Json, ids: Mapping[str, int], special: dict[str, int], path: Path
) -> CharacterTokenizer:
    pattern = _split_pattern(content.get("pre_tokenizer"))
    if model.get("unk_token") != UNKNOWN or UNKNOWN not in special:
        found = f"the unknown token {model.get('unk_token')!r}"
        raise DataError(problem(path, found, f"{UNKNOWN} among the added tokens", "Train it with Pellucid."))
    for cls in (CharacterTokenizer, WordTokenizer):
        if pattern == cls.pattern:
            return cls([token.encode() for token in sorted(ids, key=lambda name: ids[name])], special)
    advice = "Words are cut in many ways; only Pellucid's own can be read."
    raise DataError(problem(path, f"a WordLevel split by {pattern!r}", "Pellucid's word or character split", advice))


def _read_bpe(
    content: Json, model: Json, ids: Mapping[str, int], special: Mapping[str, int], path: Path
) -> BPETokenizer:
    _refuse(content.get("normalizer"), "a normalizer", path, _ForeignError)
    for option in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        _refuse(model.get(option), option, path, _ForeignError)
    pattern = _bpe_pattern(content.get("pre_tokenizer"), path)
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise DataError(problem(path, "no list of merges", "merges", "The file is damaged."))
    tokenizer = build_bpe(ids, parse_merges(merges, path), special, pattern, path)
    if model.get("ignore_merges"):
        unmade = [spell(t) for t in tokenizer.ordinary_tokens().values() if len(tokenizer.merge_piece(t)) != 1]
        _refuse(unmade[:3], "ignore_merges with tokens that no merge makes", path, _ForeignError)
    return tokenizer


def _bpe_pattern(pre_tokenizer: object, path: Path) -> str:
    steps = pre_tokenizer.get("pretokenizers") if isinstance(pre_tokenizer, dict) else None
    steps = steps if isinstance(steps, list) else [pre_tokenizer]
    byte_level = steps[-1] if steps else None
    if isinstance(byte_level, dict) and byte_level.get("type") == "ByteLevel":
        _refuse(byte_level.get("add_prefix_space"), "add_prefix_space", path, _ForeignError)
        own_pattern = byte_level.get("use_regex", True)
        if len(steps) == 1 and own_pattern:
            return PATTERNS["gpt2"]
        pattern = _split_pattern(steps[0]) if len(steps) == 2 and not own_pattern else None
        if pattern is not None:
            return pattern
    found = f"the pre-tokenizer {str(pre_tokenizer)[:120]}"
    raise _ForeignError(problem(path, found, "ByteLevel, alone or after one Split", "This kind cannot be used here."))


def _split_pattern(step: object) -> str | None:
    """The regular expression of a Split that keeps each match as a piece; None for anything else."""
    if not isinstance(step, dict) or step.get("type") != "Split" or step.get("behavior") != "Isolated":
        return None
    pattern = step.get("pattern")
    found = pattern.get("Regex") if isinstance(pattern, dict) and not step.get("invert") else None
    try:
        return regex.compile(found).pattern if isinstance(found, str) else None
    except regex.error:
        return None


def _with_config(tokenizer: Tokenizer, folder: Path) -> Tokenizer:
    """Take chat template, longest input and end-of-text name from the files beside the tokenizer, where there are."""
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    if not isinstance(config, dict):
        raise DataError(problem(path, type(config).__name__, "an object", "Remove the file or fetch it again."))
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    if (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer.chat_template = template if isinstance(template, str) else None
    longest = config.get("model_max_length")
    if isinstance(longest, int | float) and 0 < longest < UNLIMITED:
        tokenizer.model_max_length = int(longest)
    begin, end = _name(config.get("bos_token")), _name(config.get("eos_token"))
    if begin in tokenizer.special_tokens:
        tokenizer.begin_of_text_name = begin
    if end in tokenizer.special_tokens:
        tokenizer.end_of_text_name = end
    elif end and END_OF_TEXT not in tokenizer.special_tokens:
        inform(f"{path}: eos_token {end!r} is no special token of the tokenizer; it is not used.")
    return tokenizer


def _name(token: object) -> str:
    """A special token as tokenizer_config.json says it: its name, or an object that holds it; empty for none."""
    name = token.get("content") if isinstance(token, dict) else token
    return name if isinstance(name, str) else ""
