"""`pellucid quickstart`: the whole way, from raw text to an assistant. Read steps.py as a table of contents."""
