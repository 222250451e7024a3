"""What the loss spends beside its products, compiled by Numba."""
