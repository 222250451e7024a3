"""What training on a CPU spends beside products, compiled by Numba: fast twins of torch's operations."""
