"""The HTTP server: OpenAI's protocol for one's own runs, and the pages that `cli.py` hands over."""
