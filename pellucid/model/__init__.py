"""Stage 1b: token ids to logits, and the formats in which weights are kept."""
