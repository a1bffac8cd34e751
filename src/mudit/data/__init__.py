"""Datasets that yield batches as a function of indices, and the order of training."""

from mudit.data.dataset import ArrayDataset, ImageDataset, Splits
from mudit.data.folder import FolderDataset, centre_crop
from mudit.data.order import batch_indices, flips, permutation
from mudit.data.sources import open_dataset

__all__ = [
    "ArrayDataset",
    "FolderDataset",
    "ImageDataset",
    "Splits",
    "batch_indices",
    "centre_crop",
    "flips",
    "open_dataset",
    "permutation",
]
