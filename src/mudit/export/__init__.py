"""Trained runs for the world: folders that diffusers loads, checkpoints, model cards, the hub."""

from mudit.export.hub import push_folder
from mudit.export.identity import pixel_vae
from mudit.export.pipelines import pipeline_of, write_pipeline
from mudit.export.run import Layout, export_run
from mudit.export.schedulers import scheduler_for, sigmas_of

__all__ = [
    "Layout",
    "export_run",
    "pipeline_of",
    "pixel_vae",
    "push_folder",
    "scheduler_for",
    "sigmas_of",
    "write_pipeline",
]
