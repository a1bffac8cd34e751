"""What trained models produce, measured."""

from mudit.evaluation.classes import Classifier, fit_classifier
from mudit.evaluation.generate import as_images, generate
from mudit.evaluation.retrieval import RetrievalJudge, fit_judge

__all__ = [
    "Classifier",
    "RetrievalJudge",
    "as_images",
    "fit_classifier",
    "fit_judge",
    "generate",
]
