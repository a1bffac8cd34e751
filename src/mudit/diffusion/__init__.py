"""Diffusion objectives and samplers. Network-blind: a network is any callable of x_t and a time.

`x0` data, `noise` standard normal, `x_t` their mixture at `t`, which grows with noise.
"""

from mudit.diffusion.config import ObjectiveConfig as ObjectiveConfig
from mudit.diffusion.config import ObjectiveKind as ObjectiveKind
from mudit.diffusion.config import TimeLaw as TimeLaw
from mudit.diffusion.ddpm import DDPM as DDPM
from mudit.diffusion.dpm_solver import sample_dpm_solver as sample_dpm_solver
from mudit.diffusion.flow import Flow as Flow
from mudit.diffusion.flow import shifted as shifted
from mudit.diffusion.flow_samplers import sample_euler as sample_euler
from mudit.diffusion.flow_samplers import sample_heun as sample_heun
from mudit.diffusion.flow_samplers import sample_sde as sample_sde
from mudit.diffusion.guidance import GuidedChannels as GuidedChannels
from mudit.diffusion.guidance import LabelledNetwork as LabelledNetwork
from mudit.diffusion.guidance import check_interval as check_interval
from mudit.diffusion.guidance import drop_labels as drop_labels
from mudit.diffusion.guidance import guided as guided
from mudit.diffusion.kinds import make_objective as make_objective
from mudit.diffusion.noise import SampleNoise as SampleNoise
from mudit.diffusion.objective import Network as Network
from mudit.diffusion.objective import NoiseObjective as NoiseObjective
from mudit.diffusion.objective import Objective as Objective
from mudit.diffusion.objective import Prediction as Prediction
from mudit.diffusion.objective import Terms as Terms
from mudit.diffusion.samplers import SamplerStep as SamplerStep
from mudit.diffusion.samplers import sample_ddim as sample_ddim
from mudit.diffusion.samplers import sample_ddpm as sample_ddpm
from mudit.diffusion.samplers import to_uint8 as to_uint8
from mudit.diffusion.sampling import Method as Method
from mudit.diffusion.sampling import check_steps as check_steps
from mudit.diffusion.sampling import resolve_method as resolve_method
from mudit.diffusion.sampling import sample as sample
from mudit.diffusion.schedules import Betas as Betas
from mudit.diffusion.schedules import Coefficients as Coefficients
from mudit.diffusion.schedules import NoiseSchedule as NoiseSchedule
from mudit.diffusion.schedules import Spacing as Spacing
from mudit.diffusion.schedules import even_timesteps as even_timesteps
from mudit.diffusion.schedules import learned_log_variance as learned_log_variance
from mudit.diffusion.schedules import linear_schedule as linear_schedule
from mudit.diffusion.schedules import make_schedule as make_schedule
from mudit.diffusion.schedules import posterior_mean as posterior_mean
from mudit.diffusion.schedules import predict_noise_from_x0 as predict_noise_from_x0
from mudit.diffusion.schedules import predict_x0_from_noise as predict_x0_from_noise
from mudit.diffusion.schedules import q_sample as q_sample
from mudit.diffusion.schedules import respace as respace
from mudit.diffusion.schedules import scaled_linear_schedule as scaled_linear_schedule
from mudit.diffusion.schedules import strided_timesteps as strided_timesteps
from mudit.diffusion.vp_sde import VPSDE as VPSDE

__all__ = [
    "DDPM",
    "VPSDE",
    "Betas",
    "Coefficients",
    "Flow",
    "GuidedChannels",
    "LabelledNetwork",
    "Method",
    "Network",
    "NoiseObjective",
    "NoiseSchedule",
    "Objective",
    "ObjectiveConfig",
    "ObjectiveKind",
    "Prediction",
    "SampleNoise",
    "SamplerStep",
    "Spacing",
    "Terms",
    "TimeLaw",
    "check_interval",
    "check_steps",
    "drop_labels",
    "even_timesteps",
    "guided",
    "learned_log_variance",
    "linear_schedule",
    "make_objective",
    "make_schedule",
    "posterior_mean",
    "predict_noise_from_x0",
    "predict_x0_from_noise",
    "q_sample",
    "resolve_method",
    "respace",
    "sample",
    "sample_ddim",
    "sample_ddpm",
    "sample_dpm_solver",
    "sample_euler",
    "sample_heun",
    "sample_sde",
    "scaled_linear_schedule",
    "shifted",
    "strided_timesteps",
    "to_uint8",
]
