"""What trained models produce, drawn and measured."""

from mudit.evaluation.classes import Classifier, fit_classifier
from mudit.evaluation.generate import SamplerConfig, as_images, generate, images_of
from mudit.evaluation.pictures import picture_metadata
from mudit.evaluation.request import SampleConfig
from mudit.evaluation.sampling import Sampled, SampleJob, sample_runs

__all__ = [
    "Classifier",
    "SampleConfig",
    "SampleJob",
    "Sampled",
    "SamplerConfig",
    "as_images",
    "fit_classifier",
    "generate",
    "images_of",
    "picture_metadata",
    "sample_runs",
]
