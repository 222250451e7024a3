"""The whole model: token ids in, logits over the vocabulary out.

    ids → token embedding + position embedding → dropout → blocks → final norm → logits by the same embedding

Differs from the textbook only in what P1 asks for: names and shapes can be written as a GPT-2 folder and read back.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pellucid.config import ModelConfig
from pellucid.model.cache import KVCache
from pellucid.model.formats.folder import read_model_folder, write_model_folder
from pellucid.model.layers import Block, LayerNorm

# B batch, T tokens, D width of the model, V vocabulary


class GPT(nn.Module):
    """A GPT of the shape that `config` says, freshly initialised."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = nn.Embedding(config.context_length, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.final_norm = LayerNorm(config.d_model, config.norm_eps)
        self.initialise()

    def initialise(self) -> None:
        """GPT-2's start, carried over to other widths: all matrices N(0, 0.02²) at a width of 768.

        Narrower models start larger, by √(768 / width), and their token vectors by 768 / width: only when a token's
        own vector stands out does a small model soon learn to copy from its context (docs/performance.md). Matrices
        that end on the shortcut start smaller by √(2 × layers), biases at 0.
        """
        narrow = 768 / self.config.d_model
        for name, parameter in self.named_parameters():
            if name == "token_embedding.weight":
                nn.init.normal_(parameter, std=0.02 * narrow)
            elif name == "position_embedding.weight":
                nn.init.normal_(parameter, std=0.02)
            elif parameter.dim() == 2:
                onto_shortcut = name.endswith(("attention.output.weight", "feed_forward.contract.weight"))
                scale = 1 / math.sqrt(2 * self.config.n_layers) if onto_shortcut else 1
                nn.init.normal_(parameter, std=0.02 * math.sqrt(narrow) * scale)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, V) for token ids (B, T)."""
        return self.logits(self.hidden(ids, cache))

    def hidden(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """The last vectors before the logits, after the final norm: (B, T) → (B, T, D)."""
        x = self.dropout(self.embed(ids, cache))
        for layer, block in enumerate(self.blocks):
            x = block(x, cache, layer)
        if cache is not None:
            cache.advance(ids.shape[1])
        normed: Tensor = self.final_norm(x)
        return normed

    def embed(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Input encoding: token vector + position vector, (B, T) → (B, T, D)."""
        length = ids.shape[1]
        total = length if cache is None else cache.used + length
        if cache is None and total > self.config.context_length:
            raise ValueError(f"{total} tokens do not fit into a context of {self.config.context_length}")
        positions = torch.arange(length, device=ids.device) if cache is None else cache.positions(length)
        encoding: Tensor = self.token_embedding(ids) + self.position_embedding(positions)
        return encoding

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, D) → (…, V): how well each token's embedding fits the vector."""
        return hidden @ self.token_embedding.weight.mT

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.token_embedding.weight.device

    def parameter_count(self) -> int:
        """Trained numbers; the logits share the token embedding, so it counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def parts(self) -> list[tuple[str, int]]:
        """Each part in the order of the data, and its parameters."""

        def size(part: str) -> int:
            return sum(parameter.numel() for name, parameter in self.named_parameters() if part in name)

        layers = self.config.n_layers
        return [
            ("token embedding (and logits)", size("token_embedding")),
            ("position embedding", size("position_embedding")),
            (f"attention × {layers}", size("attention.")),
            (f"feed-forward × {layers}", size("feed_forward.")),
            (f"norms × {2 * layers + 1}", size("_norm.")),
        ]

    @torch.no_grad()
    def resize_vocab(self, vocab_size: int) -> None:
        """Room for `vocab_size` tokens; new ones start at the mean of the old, so that no logit jumps."""
        old = self.token_embedding.weight
        fresh = nn.Embedding(vocab_size, self.config.d_model, device=old.device, dtype=old.dtype)
        fresh.weight[:] = old.mean(dim=0)
        kept = min(vocab_size, old.shape[0])
        fresh.weight[:kept] = old[:kept]
        self.token_embedding = fresh
        self.config = replace(self.config, vocab_size=vocab_size)

    def save(self, folder: str | Path, **config: object) -> None:
        """Write config.json and model.safetensors as transformers reads them; `config` adds keys (eos_token_id …)."""
        write_model_folder(Path(folder), self.config, self.state_dict(), extra=config)

    @classmethod
    def load(cls, folder: str | Path) -> GPT:
        """Read a run folder or a Hugging Face folder of the GPT-2 architecture. PellucidError names what is wrong.

        Of a classifier's folder this is the model without its head.
        """
        config, weights, _ = read_model_folder(Path(folder))
        weights.pop("head", None)
        with torch.device("meta"):
            model = cls(config)
        model.load_state_dict(weights, assign=True)
        return model.eval()
