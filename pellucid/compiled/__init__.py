"""What code that Numba compiles is made of, whichever stage it belongs to: vectors of 16 numbers, and threads."""
