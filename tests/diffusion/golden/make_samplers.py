"""Write samplers.json: whole paths of diffusers' schedulers, to be walked by ours.

Needs diffusers, torch and this package (made with 0.42.1 and 2.14.1), on a CPU:

    python tests/diffusion/golden/make_samplers.py

The network is a formula, the noise JAX's, so nothing but the schedulers is compared.
"""

import json
from pathlib import Path

import diffusers
import jax
import numpy as np
import torch
from diffusers.schedulers import scheduling_ddpm

STEPS, TOTAL, SHAPE = 10, 1000, (2, 3)
KEPT_AT = [0, 1, 250, 500, 900]


def network(x, t):
    """Stand for a network: smooth in x and t."""
    return 0.8 * np.tanh(x) + 0.1 * np.sin(t / 300.0)


def start():
    return np.random.default_rng(0).standard_normal(SHAPE)


def noises():
    key = jax.random.key(7)
    return [
        np.asarray(jax.random.normal(jax.random.fold_in(key, i), SHAPE))
        for i in range(STEPS)
    ]


def walk(scheduler, **options):
    x = torch.tensor(start()) * float(scheduler.init_noise_sigma)
    scheduler.set_timesteps(STEPS)
    for i, t in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(x, t)
        prediction = torch.tensor(network(scaled.numpy(), float(t)))
        step = {k: v(i) for k, v in options.items()}
        x = scheduler.step(prediction, t, x, **step).prev_sample
    return scheduler.timesteps.tolist(), x.numpy().tolist()


def main():
    shared = {"num_train_timesteps": TOTAL}
    linear = {**shared, "beta_schedule": "linear"}
    ldm = {
        **shared,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.0015,
        "beta_end": 0.0195,
    }
    found = {"diffusers": diffusers.__version__}
    drawn = iter(noises())
    scheduling_ddpm.randn_tensor = lambda *_, **__: torch.tensor(next(drawn)).double()
    found["ddpm"] = walk(
        diffusers.DDPMScheduler(
            **linear, clip_sample=False, variance_type="fixed_small"
        )
    )
    for eta in (0.0, 0.5):
        for target, name in (("epsilon", "eps"), ("v_prediction", "v")):
            found[f"ddim {eta} {name}"] = walk(
                diffusers.DDIMScheduler(
                    **ldm,
                    clip_sample=False,
                    set_alpha_to_one=True,
                    prediction_type=target,
                ),
                eta=lambda _, eta=eta: eta,
                variance_noise=lambda i, eta=eta: (
                    torch.tensor(noises()[i]).double() if eta else None
                ),
            )
    for schedule in ("linear", "squaredcos_cap_v2"):
        options = {**shared, "beta_schedule": schedule}
        found[f"dpmpp_2m {schedule}"] = walk(
            diffusers.DPMSolverMultistepScheduler(
                **options,
                algorithm_type="dpmsolver++",
                solver_order=2,
                final_sigmas_type="zero",
                lower_order_final=False,
                euler_at_final=True,
            )
        )
    for name, options in (
        ("linear", linear),
        ("scaled_linear", ldm),
        ("cosine", {**shared, "beta_schedule": "squaredcos_cap_v2"}),
    ):
        kept = diffusers.DDPMScheduler(**options).alphas_cumprod.double()
        found[name] = kept[KEPT_AT].tolist()
    path = Path(__file__).with_name("samplers.json")
    path.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
