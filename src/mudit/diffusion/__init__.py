"""Diffusion objectives and samplers. Network-blind: a network is any callable of x_t and t.

`x0` data, `noise` standard normal, `x_t` their mixture at step `t`, which grows with noise.
"""

from mudit.diffusion.ddpm import DDPM as DDPM
from mudit.diffusion.ddpm import DDPMConfig as DDPMConfig
from mudit.diffusion.ddpm import DDPMTerms as DDPMTerms
from mudit.diffusion.ddpm import Network as Network
from mudit.diffusion.guidance import GuidedChannels as GuidedChannels
from mudit.diffusion.guidance import LabelledNetwork as LabelledNetwork
from mudit.diffusion.guidance import drop_labels as drop_labels
from mudit.diffusion.guidance import guided as guided
from mudit.diffusion.samplers import SamplerStep as SamplerStep
from mudit.diffusion.samplers import sample_ddim as sample_ddim
from mudit.diffusion.samplers import sample_ddpm as sample_ddpm
from mudit.diffusion.samplers import to_uint8 as to_uint8
from mudit.diffusion.schedules import Coefficients as Coefficients
from mudit.diffusion.schedules import NoiseSchedule as NoiseSchedule
from mudit.diffusion.schedules import Spacing as Spacing
from mudit.diffusion.schedules import even_timesteps as even_timesteps
from mudit.diffusion.schedules import learned_log_variance as learned_log_variance
from mudit.diffusion.schedules import linear_schedule as linear_schedule
from mudit.diffusion.schedules import posterior_mean as posterior_mean
from mudit.diffusion.schedules import predict_noise_from_x0 as predict_noise_from_x0
from mudit.diffusion.schedules import predict_x0_from_noise as predict_x0_from_noise
from mudit.diffusion.schedules import q_sample as q_sample
from mudit.diffusion.schedules import respace as respace
from mudit.diffusion.schedules import strided_timesteps as strided_timesteps

__all__ = [
    "DDPM",
    "Coefficients",
    "DDPMConfig",
    "DDPMTerms",
    "GuidedChannels",
    "LabelledNetwork",
    "Network",
    "NoiseSchedule",
    "SamplerStep",
    "Spacing",
    "drop_labels",
    "even_timesteps",
    "guided",
    "learned_log_variance",
    "linear_schedule",
    "posterior_mean",
    "predict_noise_from_x0",
    "predict_x0_from_noise",
    "q_sample",
    "respace",
    "sample_ddim",
    "sample_ddpm",
    "strided_timesteps",
    "to_uint8",
]
