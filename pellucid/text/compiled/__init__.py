"""The fast twins of `bpe.py` and `bpe_training.py`: the same pieces, merges and ids, compiled by Numba."""
