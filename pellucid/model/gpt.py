"""The whole model: token ids in, logits over the vocabulary out.

    gpt2   ids → token embedding + position embedding → dropout → blocks → final norm → logits by the same embedding
    llama  ids → token embedding → blocks that rotate by position → final norm → logits by the same embedding or another

Differs from the textbook only in what P1 asks for: names and shapes can be written as a Hugging Face folder and read
back. What the families are made of stands in two tables, `FAMILIES` (block.py) and `POSITIONS` (positions.py).
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pellucid import hub
from pellucid.config import ModelConfig
from pellucid.model.block import FAMILIES, Block
from pellucid.model.cache import KVCache
from pellucid.model.formats.folder import model_files, read_model_folder, write_model_folder
from pellucid.model.outline import Outline
from pellucid.model.positions import POSITIONS, sinusoidal_table

# B batch, T tokens, D width of the model, V vocabulary

WAVES = 0.0125  # size of the sine waves that positions start as, at a width of 768: as large as GPT-2's random ones


class GPT(nn.Module):
    """A GPT of the shape that `config` says, freshly initialised."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False  # while training: keep what goes into a block, and compute the rest again for gradients
        parts = FAMILIES[config.family]
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = POSITIONS[config.positions](config)
        self.dropout = nn.Dropout(config.dropout if parts.shortcut_dropout else 0.0)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.final_norm = parts.norm(config.d_model, config.norm_eps)
        self.output_layer = None if config.tied else nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.initialise()

    def initialise(self) -> None:
        """GPT-2's start, carried over to other widths: all matrices N(0, 0.02²) at a width of 768.

        Narrower models start larger, by √(768 / width), and their token vectors by 768 / width: only when a token's
        own vector stands out does a small model soon learn to copy from its context. Their position vectors start as
        sine waves, in which a distance is a rotation whatever the place: to look so many tokens back is then learnt
        once, not for each place anew (docs/performance.md). Matrices that end on the shortcut start smaller by
        √(2 × layers), biases at 0.
        """
        narrow = 768 / self.config.d_model
        for name, parameter in self.named_parameters():
            if name == "token_embedding.weight":
                nn.init.normal_(parameter, std=0.02 * narrow)
            elif name == "position_embedding.weight" and narrow > 1:
                with torch.no_grad():
                    parameter.copy_(sinusoidal_table(*parameter.shape) * WAVES * narrow)
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
        x, rotation = self.position_embedding.encode(self.token_embedding(ids), self.positions(ids, cache))
        x = self.dropout(x)
        for layer, block in enumerate(self.blocks):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, cache, layer, rotation, use_reentrant=False)
            else:
                x = block(x, cache, layer, rotation)
        if cache is not None:
            cache.advance(ids.shape[1])
        normed: Tensor = self.final_norm(x)
        return normed

    def positions(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Where the tokens of `ids` stand, each row counted from its own first token: (T,) or (B, T)."""
        if cache is not None:
            return cache.positions(ids.shape[1])
        if ids.shape[1] > self.config.context_length:
            raise ValueError(f"{ids.shape[1]} tokens do not fit into a context of {self.config.context_length}")
        return torch.arange(ids.shape[1], device=ids.device)

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, D) → (…, V): how well each token's output vector fits."""
        return hidden @ self.output_weight.mT

    @property
    def output_weight(self) -> Tensor:
        """(V, D): the vectors that the logits compare with, the token embedding's where they are tied."""
        return self.token_embedding.weight if self.output_layer is None else self.output_layer.weight

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.token_embedding.weight.device

    def parameter_count(self) -> int:
        """Trained numbers; where the logits share the token embedding it counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def parts(self) -> list[tuple[str, int]]:
        """Each part in the order of the data, and its parameters."""

        def size(part: str) -> int:
            return sum(parameter.numel() for name, parameter in self.named_parameters() if part in name)

        layers = self.config.n_layers
        sizes = [
            ("token embedding (and logits)" if self.config.tied else "token embedding", size("token_embedding")),
            ("position embedding", size("position_embedding")),
            (f"attention × {layers}", size("attention.")),
            (f"feed-forward × {layers}", size("feed_forward.")),
            (f"norms × {2 * layers + 1}", size("_norm.") - size("attention.query_norm") - size("attention.key_norm")),
            ("logits", 0 if self.config.tied else self.output_weight.numel()),
        ]
        return [(part, count) for part, count in sizes if count]

    @torch.no_grad()
    def resize_vocab(self, vocab_size: int) -> None:
        """Room for `vocab_size` tokens; new ones start at the mean of the old, so that no logit jumps."""
        self.token_embedding.weight = resized(self.token_embedding.weight, vocab_size)
        self.token_embedding.num_embeddings = vocab_size
        if self.output_layer is not None:
            self.output_layer.weight = resized(self.output_layer.weight, vocab_size)
            self.output_layer.out_features = vocab_size
        self.config = replace(self.config, vocab_size=vocab_size)

    def save(self, folder: str | Path, **config: object) -> None:
        """Write config.json and model.safetensors as transformers reads them; `config` adds keys (eos_token_id …)."""
        write_model_folder(Path(folder), self.config, self.state_dict(), extra=config)

    @classmethod
    def load(cls, where: str | Path) -> GPT:
        """Read a run folder or a Hugging Face folder of either family, or a model of the hub (gpt2, owner/name).

        Of a classifier's folder this is the model without its head. A model of the hub is fetched once and kept
        (PELLUCID_CACHE says where); `pellucid import` makes a run folder of it. PellucidError names what is wrong.
        """
        config, weights, _ = read_model_folder(folder_of(where))
        weights.pop("head", None)
        with Outline():
            model = cls(config)
        model.load_state_dict(weights, assign=True)
        return model.eval()


def folder_of(where: str | Path) -> Path:
    """The folder itself, or the one in which a model of the hub is kept, fetched where it is not there yet."""
    repo = hub.meant_by(where)
    return hub.cached(repo, "model", model_files) if repo else Path(where)


def resized(table: Tensor, rows: int) -> nn.Parameter:
    """The first `rows` of a (V, D) table; where it has fewer, their mean is added as often as needed."""
    kept = table[:rows]
    return nn.Parameter(torch.cat([kept, table.mean(dim=0).expand(rows - len(kept), -1)]))
