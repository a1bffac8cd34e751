"""Datasets that yield batches as a function of indices, and the order of training."""

from mudit.data.autoencoder import Autoencoder, load_autoencoder, open_autoencoder, weights_hash
from mudit.data.captioned import CaptionedImages
from mudit.data.dataset import ArrayDataset, ImageDataset, Skipped, Splits
from mudit.data.declared import DeclaredDataset, declared_splits
from mudit.data.emoji import draw_emoji
from mudit.data.encode_latents import Encoded, StoredDtype, encode_latents
from mudit.data.encoders import TextEncoder, TextSizes, open_text_encoder, text_encoder_spec
from mudit.data.folder import FolderDataset
from mudit.data.images import centre_crop
from mudit.data.latents import (
    ImagesOfLatents,
    LatentDataset,
    LatentSpace,
    check_space,
    images_of,
    keeps_images,
    latent_space,
)
from mudit.data.order import batch_indices, check_batch_size, flips, permutation
from mudit.data.prompts import check_prompts, read_prompts
from mudit.data.sources import has_own_size, open_captions_of, open_dataset
from mudit.data.store import is_finished, read_layout
from mudit.data.stored_text import (
    StoredText,
    check_text,
    is_stored,
    store_text,
    stored_text_sizes,
    stored_tokens,
    text_facts,
)
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
    "Autoencoder",
    "CaptionedImages",
    "DeclaredDataset",
    "Encoded",
    "FolderDataset",
    "ImageDataset",
    "ImagesOfLatents",
    "LatentDataset",
    "LatentSpace",
    "Skipped",
    "Splits",
    "StoredDtype",
    "StoredText",
    "TextEncoder",
    "TextFeatures",
    "TextSizes",
    "batch_indices",
    "caption_groups",
    "captions_of",
    "centre_crop",
    "check_batch_size",
    "check_prompts",
    "check_space",
    "check_text",
    "class_captions",
    "declared_splits",
    "draw_emoji",
    "encode_captions",
    "encode_latents",
    "flips",
    "has_own_size",
    "images_of",
    "is_finished",
    "is_stored",
    "keeps_images",
    "labels_of",
    "latent_space",
    "load_autoencoder",
    "open_autoencoder",
    "open_captions_of",
    "open_dataset",
    "open_text_encoder",
    "permutation",
    "read_layout",
    "read_prompts",
    "store_text",
    "stored_text_sizes",
    "stored_tokens",
    "text_encoder_spec",
    "text_facts",
    "weights_hash",
]
