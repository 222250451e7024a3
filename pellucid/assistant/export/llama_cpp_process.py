"""What llama.cpp makes of a GGUF file, asked in a process of its own, by any Python that has llama-cpp-python.

    python llama_cpp_process.py FILE.gguf < {"texts": [...], "ids": [...]}   →   {"ids": [[...]], "logits": base64}

A process of its own, because a file that llama.cpp dislikes can end it; and a file that imports nothing of ours.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any


def answer(path: str, question: Any) -> Any:
    """The ids of each text, and the logits (T, V) of the given ids as float32."""
    import llama_cpp
    import numpy as np

    model = llama_cpp.Llama(
        path,
        n_ctx=max(32, len(question["ids"])),
        logits_all=True,
        n_gpu_layers=0,
        type_k=llama_cpp.GGML_TYPE_F32,  # keys and values are otherwise rounded to float16
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )
    ids = [model.tokenize(text.encode(), add_bos=False, special=False) for text in question["texts"]]
    model.eval(question["ids"])
    logits = np.ascontiguousarray(model.scores[: len(question["ids"])], dtype="<f4")
    return {"ids": ids, "logits": base64.b64encode(logits.tobytes()).decode()}


if __name__ == "__main__":
    print(json.dumps(answer(sys.argv[1], json.load(sys.stdin))))
