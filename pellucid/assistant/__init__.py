"""The assistant at work: a chat in the terminal."""
