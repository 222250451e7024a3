"""The version, in a file of its own, so that any stage may write it down without importing the package's front."""

__version__ = "0.1.0"
