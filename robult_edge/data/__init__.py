"""Data sets: read, cut into windows, split by group. Needs numpy and msgspec alone."""

from robult_edge.data.dataset import Dataset, Recording
from robult_edge.data.load import load

__all__ = ["Dataset", "Recording", "load"]
