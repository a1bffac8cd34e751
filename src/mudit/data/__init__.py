"""Datasets that yield batches as a function of indices, and the order of training."""

from mudit.data.captioned import CaptionedImages
from mudit.data.dataset import ArrayDataset, ImageDataset, Skipped, Splits
from mudit.data.declared import DeclaredDataset, declared_splits
from mudit.data.emoji import draw_emoji
from mudit.data.encoders import TextEncoder, TextSizes, open_text_encoder
from mudit.data.folder import FolderDataset
from mudit.data.images import centre_crop
from mudit.data.order import batch_indices, check_batch_size, flips, permutation
from mudit.data.prompts import read_prompts
from mudit.data.sources import open_dataset
from mudit.data.text import TextFeatures, captions_of, class_captions, encode_captions

__all__ = [
    "ArrayDataset",
    "CaptionedImages",
    "DeclaredDataset",
    "FolderDataset",
    "ImageDataset",
    "Skipped",
    "Splits",
    "TextEncoder",
    "TextFeatures",
    "TextSizes",
    "batch_indices",
    "captions_of",
    "centre_crop",
    "check_batch_size",
    "class_captions",
    "declared_splits",
    "draw_emoji",
    "encode_captions",
    "flips",
    "open_dataset",
    "open_text_encoder",
    "permutation",
    "read_prompts",
]
