"""How probable is this picture? bound.py the variational bound of the ancestral chain · ode.py the exact likelihood of the
probability-flow ODE · bits.py from nats to bits per dimension."""

from diffusion_lib.likelihood.bits import VariationalDequantiser, bits_per_dim
from diffusion_lib.likelihood.bound import Bound, elbo
from diffusion_lib.likelihood.ode import OdeLikelihood, ode_likelihood, ode_log_likelihood

__all__ = [
    "Bound",
    "OdeLikelihood",
    "VariationalDequantiser",
    "bits_per_dim",
    "elbo",
    "ode_likelihood",
    "ode_log_likelihood",
]
