"""What a sampler costs beside its network: microseconds per evaluation at batch 1, with the network x -> x / 2.

    OMP_NUM_THREADS=1 python benchmarks/sampler_overhead.py

Each sampler runs 50 steps on a picture of shape (1, 3, 32, 32), as a user calls it: grid checked, coefficients made, states yielded, ``final``. Beside
it, in the same turn: a bare Python loop that does only the arithmetic of the same method, from floats made beforehand, and diffusers' ``step`` of the same
method, ``set_timesteps`` left out. Turns are interleaved, and
processor time is counted, so that a busy machine disturbs little. Aim: at most 3 times the bare loop. The last state of each bare loop must be the sampler's.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from solver_peers import PRESERVING, make

from diffusion_lib.samplers import (
    ddim,
    ddim_coefficients,
    ddpm,
    deis,
    deis_coefficients,
    dpmpp,
    dpmpp_coefficients,
    euler_maruyama,
    euler_maruyama_coefficients,
    final,
    heun,
    predictor_corrector,
    unipc,
    unipc_coefficients,
)
from diffusion_lib.samplers.ddpm import ddpm_coefficients
from diffusion_lib.schedules import VPSchedule, time_grid

SCHEDULE = VPSchedule()


def denoiser(x, t):
    return 0.5 * x


def net(x):
    return 0.5 * x


# --- bare loops: each is given floats, and does the arithmetic of its method ------------------------------------------


def bare_linear(x, rows, generator):
    """x <- a x + b x0_hat + c z"""
    for a, b, c in rows:
        x = a * x + b * net(x)
        if c > 0:
            x = x + c * torch.randn(x.shape, generator=generator)
    return x


def bare_heun(x, places, generator):
    for (alpha, sigma), (alpha_s, sigma_s) in zip(places, places[1:], strict=False):
        y, h = x / alpha, sigma_s / alpha_s - sigma / alpha
        slope = (x - alpha * net(x)) / sigma
        x = alpha_s * (y + h * slope)
        if sigma_s > 0:
            second = (x - alpha_s * net(x)) / sigma_s
            x = alpha_s * (y + h * 0.5 * (slope + second))
    return x


def bare_multistep(x, rows, generator):
    """x <- keep x + sum_j w_j G_{k-j}, with the correction of the step before where there is one."""
    past, before, last, old_keep = [], x, (), 1.0
    for keep, weights, added, from_x, from_x0, correct in rows:
        new = net(x)
        if from_x:
            new = from_x * x + from_x0 * new
        if last:
            x = old_keep * before + last[0] * new
            for w, g in zip(last[1:], past, strict=False):
                x = x + w * g
        past = [new, *past[:4]]
        before, last, old_keep = x, correct, keep
        x = keep * x
        for w, g in zip(weights, past, strict=False):
            x = x + w * g
        if added:
            x = x + added * torch.randn(x.shape, generator=generator)
    return x


def bare_corrected(x, rows, generator):
    """Predictor and one Langevin step: x <- a x + b x0_hat + c z, then x <- x + h/2 (alpha x0_hat - x) / sigma^2 + sqrt(h) z."""
    for a, b, c, half_h, root_h, alpha, sigma_sq in rows:
        x = a * x + b * net(x)
        if c > 0:
            x = x + c * torch.randn(x.shape, generator=generator)
        if sigma_sq > 0:
            x = x + half_h * ((alpha * net(x) - x) / sigma_sq) + root_h * torch.randn(x.shape, generator=generator)
    return x


def cases(times):
    """name: (sampler, options, bare loop, its floats, evaluations, the method's name in solver_peers or None)"""
    steps = len(times) - 1
    alpha, sigma = SCHEDULE.alpha(times).tolist(), SCHEDULE.sigma(times).tolist()
    reverse = [(row.c_xt, row.c_x0, row.posterior**0.5 if row.forward else 0.0) for row in ddpm_coefficients(SCHEDULE, times)]
    euler = euler_maruyama_coefficients(SCHEDULE, times)
    corrected = []
    for (a, b, c), al, s in zip(euler, alpha[1:], sigma[1:], strict=True):
        h = 4 * (0.16 * s) ** 2
        corrected.append((a, b, c, 0.5 * h, h**0.5, al, s * s))
    return {
        "ddpm": (ddpm, {}, bare_linear, reverse, steps, None),
        "ddim": (ddim, {}, bare_linear, ddim_coefficients(SCHEDULE, times), steps, "DDIM"),
        "ddim, eta 1": (ddim, {"eta": 1.0}, bare_linear, ddim_coefficients(SCHEDULE, times, 1.0), steps, None),
        "heun": (heun, {}, bare_heun, list(zip(alpha, sigma, strict=True)), 2 * steps - 1, "Heun"),
        "dpmpp 2": (dpmpp, {}, bare_multistep, dpmpp_coefficients(SCHEDULE, times), steps, "DPM-Solver++ 2M"),
        "dpmpp 3": (dpmpp, {"order": 3}, bare_multistep, dpmpp_coefficients(SCHEDULE, times, 3), steps, "DPM-Solver++ 3M"),
        "dpmpp 2, eta 1": (dpmpp, {"eta": 1.0}, bare_multistep, dpmpp_coefficients(SCHEDULE, times, 2, 1.0), steps, None),
        "unipc 3": (unipc, {}, bare_multistep, unipc_coefficients(SCHEDULE, times), steps, "UniPC 3"),
        "deis 5": (deis, {}, bare_multistep, deis_coefficients(SCHEDULE, times), steps, "DEIS 3"),
        "euler_maruyama": (euler_maruyama, {}, bare_linear, euler, steps, None),
        "predictor_corrector": (predictor_corrector, {}, bare_corrected, corrected, 2 * steps - 1, None),
    }


def diffusers_loop(name, times, x):
    """A timed run of their step, the scheduler made beforehand."""
    levels = SCHEDULE.noise_level(times)
    if name == "DEIS 3":
        levels[-1] = levels[-2] / 2
    options = {"UniPC 3": {"solver_order": 3}, "DPM-Solver++ 3M": {"solver_order": 3}, "DEIS 3": {"solver_order": 3}}.get(name, {})
    scheduler = make(name, levels, options)
    if name not in PRESERVING:
        x = x / SCHEDULE.alpha(times[0]).item()
    timesteps = [int(t) for t in scheduler.timesteps] if name == "DDIM" else list(scheduler.timesteps)
    begun = time.thread_time()
    for timestep in timesteps:
        x = scheduler.step(net(x), timestep, x, return_dict=False)[0]
    return time.thread_time() - begun


def timed(call):
    begun = time.thread_time()
    out = call()
    return time.thread_time() - begun, out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--shape", type=int, nargs="+", default=[1, 3, 32, 32])
    parser.add_argument("--skip-diffusers", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    x, times = torch.randn(options.shape, generator=torch.Generator().manual_seed(0)), time_grid(SCHEDULE, options.steps, "log_snr")
    print("| µs per evaluation, median (min) | bare loop | ours, whole call | ratio | ratio of minima | diffusers' step |\n|---|---|---|---|---|---|")
    for name, (sampler, settings, bare, floats, asked, peer) in cases(times).items():
        spent = {"bare": [], "ours": [], "theirs": []}
        for turn in range(options.repeats + 3):
            with torch.no_grad():
                a, expected = timed(lambda: bare(x, floats, torch.Generator().manual_seed(1)))  # noqa: B023
            b, found = timed(lambda: final(sampler(denoiser, SCHEDULE, x, times, generator=torch.Generator().manual_seed(1), **settings)))  # noqa: B023
            assert torch.allclose(expected, found, rtol=1e-4, atol=1e-5), name
            c = diffusers_loop(peer, times, x) if peer and not options.skip_diffusers else 0.0
            if turn >= 3:
                for key, seconds in zip(spent, (a, b, c), strict=True):
                    spent[key].append(seconds * 1e6 / asked)
        middle, least = ({key: pick(v) for key, v in spent.items()} for pick in (statistics.median, min))
        cell = {key: f"{middle[key]:.1f} ({least[key]:.1f})" if middle[key] else "" for key in spent}
        ratio = statistics.median(b / a for a, b in zip(spent["bare"], spent["ours"], strict=True))
        print(f"| {name} | {cell['bare']} | {cell['ours']} | {ratio:.2f} | {least['ours'] / least['bare']:.2f} | {cell['theirs']} |", flush=True)


if __name__ == "__main__":
    main()
