"""Datasets that yield batches as a function of indices, and the order of training."""

from mudit.data.captioned import CaptionedImages
from mudit.data.dataset import ArrayDataset, ImageDataset, Skipped, Splits
from mudit.data.emoji import draw_emoji
from mudit.data.encoders import TextEncoder, TextSizes, open_text_encoder
from mudit.data.folder import FolderDataset
from mudit.data.images import centre_crop
from mudit.data.order import batch_indices, flips, permutation
from mudit.data.sources import open_dataset
from mudit.data.text import (
    TextFeatures,
    caption_groups,
    captions_of,
    class_captions,
    encode_captions,
    labels_of,
)

__all__ = [
    "ArrayDataset",
    "CaptionedImages",
    "FolderDataset",
    "ImageDataset",
    "Skipped",
    "Splits",
    "TextEncoder",
    "TextFeatures",
    "TextSizes",
    "batch_indices",
    "caption_groups",
    "captions_of",
    "centre_crop",
    "class_captions",
    "draw_emoji",
    "encode_captions",
    "flips",
    "labels_of",
    "open_dataset",
    "open_text_encoder",
    "permutation",
]
