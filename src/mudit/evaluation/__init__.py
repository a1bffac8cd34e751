"""What trained models produce, measured."""

from mudit.evaluation.classes import Classifier, fit_classifier
from mudit.evaluation.decode import as_images, check_decoder, open_decoder, pictures_of
from mudit.evaluation.generate import generate

__all__ = [
    "Classifier",
    "as_images",
    "check_decoder",
    "fit_classifier",
    "generate",
    "open_decoder",
    "pictures_of",
]
