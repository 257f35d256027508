"""How good samples are, by numbers: Fréchet distance on named features, precision and recall, MMD, Wasserstein distances,
class accuracy, caption accuracy, the Stein discrepancy from a density, and whether samples are copies of the training set.
Every estimate that has one comes with its standard error.
"""

from __future__ import annotations

from diffusion_lib.features import digit_accuracy, digit_classifier, digit_features, digit_scores
from diffusion_lib.metrics.captions import attribute_accuracies, caption_accuracy, shares
from diffusion_lib.metrics.coverage import PrecisionRecall, memorisation_ratio, nearest_neighbours, precision_recall
from diffusion_lib.metrics.distances import MMD, mmd, sliced_wasserstein, wasserstein_1d
from diffusion_lib.metrics.estimates import Estimate, accuracy, bootstrap
from diffusion_lib.metrics.frechet import DigitFrechet, digit_frechet, frechet_distance, frechet_floor, gaussian_frechet
from diffusion_lib.metrics.stein import SteinTest, stein_discrepancy, stein_kernel, stein_test

__all__ = [
    "MMD", "DigitFrechet", "Estimate", "PrecisionRecall", "SteinTest", "accuracy", "attribute_accuracies",
    "bootstrap", "caption_accuracy", "digit_accuracy", "digit_classifier", "digit_features",
    "digit_frechet", "digit_scores", "frechet_distance", "frechet_floor", "gaussian_frechet", "memorisation_ratio", "mmd",
    "nearest_neighbours", "precision_recall", "shares", "sliced_wasserstein", "stein_discrepancy", "stein_kernel", "stein_test",
    "wasserstein_1d",
]
