"""Weights in other projects' names, as tables that are read in both directions.

A format is a module with a PREFIX that names may carry and five functions: `table`, `shape_of`, `to_theirs`,
`config_to_theirs` and `config_to_ours`. Here stands which of them reads which model_type of a config.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class ModelType:
    """Which module knows a model_type, and what transformers calls its language models and its classifiers."""

    module: str
    language_model: str
    classifier: str

    def load(self) -> ModuleType:
        """The module, imported when it is needed."""
        return import_module(self.module)


MODEL_TYPES = {
    "gpt2": ModelType("pellucid.model.formats.gpt2", "GPT2LMHeadModel", "GPT2ForSequenceClassification"),
    "llama": ModelType("pellucid.model.formats.llama", "LlamaForCausalLM", "LlamaForSequenceClassification"),
    "mistral": ModelType("pellucid.model.formats.llama", "MistralForCausalLM", "MistralForSequenceClassification"),
    "qwen3": ModelType("pellucid.model.formats.llama", "Qwen3ForCausalLM", "Qwen3ForSequenceClassification"),
}


def is_classifier(settings: dict[str, Any]) -> bool:
    """Whether a config.json says that its model has labels instead of next tokens."""
    names = settings.get("architectures")
    return any("ForSequenceClassification" in str(name) for name in (names if isinstance(names, list) else [names]))


def of_family(family: str) -> ModuleType:
    """The format in which a family of ours is written."""
    return MODEL_TYPES[family].load()
