"""Guidance: wrap a denoiser, return a denoiser; samplers stay as they are. scale = 1 is the conditional model itself, everywhere.

bayes.py a gradient of log p(what is asked | x_t) · contrast.py two denoisers and the line through them · limits.py what keeps x0_hat in its range.
"""

from diffusion_lib.guidance.bayes import classifier_guided, measurement_guided
from diffusion_lib.guidance.contrast import autoguided, classifier_free_guided
from diffusion_lib.guidance.limits import rescaled, thresholded

__all__ = ["autoguided", "classifier_free_guided", "classifier_guided", "measurement_guided", "rescaled", "thresholded"]
