"""Stage 3: a pretrained model becomes a classifier or an assistant."""
