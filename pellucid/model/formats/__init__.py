"""Weights in other projects' names, as tables that are read in both directions."""
