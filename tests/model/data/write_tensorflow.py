"""Write a GPT-2 of random weights as OpenAI released it: TensorFlow's Saver, and the sizes in hparams.json.

    python write_tensorflow.py FOLDER N_VOCAB N_CTX N_EMBD N_HEAD N_LAYER

Needs TensorFlow and nothing of Pellucid. expected.npz holds the same numbers, for the test. The folder tensorflow/
beside this file was made by it: 257 16 4 2 2.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1


def shapes(n_vocab: int, n_ctx: int, n_embd: int, n_layer: int) -> dict[str, list[int]]:
    """The variables of OpenAI's model.py."""
    d = n_embd
    result = {"model/wpe": [n_ctx, d], "model/wte": [n_vocab, d], "model/ln_f/g": [d], "model/ln_f/b": [d]}
    for layer in range(n_layer):
        for name, shape in {
            "ln_1/g": [d],
            "ln_1/b": [d],
            "attn/c_attn/w": [1, d, 3 * d],
            "attn/c_attn/b": [3 * d],
            "attn/c_proj/w": [1, d, d],
            "attn/c_proj/b": [d],
            "ln_2/g": [d],
            "ln_2/b": [d],
            "mlp/c_fc/w": [1, d, 4 * d],
            "mlp/c_fc/b": [4 * d],
            "mlp/c_proj/w": [1, 4 * d, d],
            "mlp/c_proj/b": [d],
        }.items():
            result[f"model/h{layer}/{name}"] = shape
    return result


def write(folder: Path, n_vocab: int, n_ctx: int, n_embd: int, n_head: int, n_layer: int) -> None:
    """Checkpoint, hparams.json and expected.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    with tf1.Graph().as_default(), tf1.Session() as session:
        tf1.set_random_seed(0)
        for name, shape in shapes(n_vocab, n_ctx, n_embd, n_layer).items():
            start = tf1.random_normal_initializer(stddev=0.2)
            tf1.get_variable(name, shape, initializer=start, use_resource=False)
        session.run(tf1.global_variables_initializer())
        values = session.run({variable.op.name: variable for variable in tf1.global_variables()})
        tf1.train.Saver(save_relative_paths=True).save(session, str(folder / "model.ckpt"), write_meta_graph=False)
    sizes = {"n_vocab": n_vocab, "n_ctx": n_ctx, "n_embd": n_embd, "n_head": n_head, "n_layer": n_layer}
    (folder / "hparams.json").write_text(json.dumps(sizes))
    np.savez_compressed(folder / "expected.npz", **values)


if __name__ == "__main__":
    write(Path(sys.argv[1]), *map(int, sys.argv[2:]))
