"""What trained models produce, measured."""

from mudit.evaluation.classes import Classifier, fit_classifier
from mudit.evaluation.generate import as_images, generate

__all__ = ["Classifier", "as_images", "fit_classifier", "generate"]
