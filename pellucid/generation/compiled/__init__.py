"""The forward pass compiled by Numba: the fast twin of `GPT.hidden` and `GPT.logits`, for decoding on a CPU."""
