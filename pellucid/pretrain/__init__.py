"""Stage 2: the loss, the one training loop, checkpoints, evaluation."""
