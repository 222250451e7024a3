"""Seeing: the trace of one forward pass, and the pages that show it and whole runs."""
