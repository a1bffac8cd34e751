"""What trained models produce, drawn and measured."""

from mudit.evaluation.classes import Classifier, fit_classifier
from mudit.evaluation.decode import as_images, check_decoder, open_decoder, pictures_of
from mudit.evaluation.generate import SamplerConfig, generate, sampled_images
from mudit.evaluation.pictures import picture_metadata
from mudit.evaluation.request import SampleConfig
from mudit.evaluation.retrieval import RetrievalJudge, fit_judge
from mudit.evaluation.sampling import Sampled, SampleJob, sample_runs

__all__ = [
    "Classifier",
    "RetrievalJudge",
    "SampleConfig",
    "SampleJob",
    "Sampled",
    "SamplerConfig",
    "as_images",
    "check_decoder",
    "fit_classifier",
    "fit_judge",
    "generate",
    "open_decoder",
    "picture_metadata",
    "pictures_of",
    "sample_runs",
    "sampled_images",
]
