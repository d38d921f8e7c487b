"""Write sinddm.npz: pyramids and reverse steps of the official SinDDM program.

Needs torch, torchvision, scikit-image, einops, tqdm and a checkout of
github.com/fallenshock/SinDDM (made with torch 2.14.1, Pillow 13.0.0 and e7107d9):

    python tests/diffusion/golden/make_sinddm.py CHECKOUT

The network is a formula, so nothing but the process is compared.
"""

import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.modules["matplotlib"] = types.ModuleType("matplotlib")
sys.modules["matplotlib"].pyplot = None  # only draws curves
sys.path.insert(0, sys.argv[1])
from SinDDM import functions, models  # noqa: E402

SIDES = [(248, 186), (282, 176), (252, 198), (90, 70), (900, 60), (640, 480)]
STEPS = [(0, 99), (0, 40), (0, 0), (1, 50), (1, 1), (1, 0), (2, 30), (2, 0)]
BOXES = [(11, 15, 23, 15), (61, 43, 23, 15)]  # of the last scale, rounded alike


def photograph():
    """Draw an image [112, 90, 3] with edges and a gradient."""
    y, x = np.mgrid[:112, :90] / 90
    disc = (x - 0.5) ** 2 + (y - 0.6) ** 2 < 0.09
    grain = np.sin(37 * x + 5 * np.sin(29 * y))
    planes = [0.5 * y + 0.3 * disc, 0.4 + 0.2 * grain * disc, x * (1 - 0.5 * disc)]
    return np.uint8(255 * np.clip(np.stack(planes, -1), 0, 1))


def scales_of(image, area):
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(image).save(f"{folder}/image.png")
        return functions.create_img_scales(
            f"{folder}/", "image.png", create=True, auto_scale=area
        ), [
            np.asarray(Image.open(path))
            for path in sorted(Path(folder).glob("scale_?/image.png"))
        ]


def network(x, t, scale):
    """Stand for a network: smooth in x, t and scale."""
    shift = 0.1 * torch.sin(t / 30.0)[:, None, None, None] + 0.05 * float(scale)
    return 0.9 * torch.tanh(1.5 * x) + shift


def nhwc(x):
    return x.detach().numpy().transpose(0, 2, 3, 1).astype(np.float32)


def nchw(x):
    return torch.tensor(x.transpose(0, 3, 1, 2))


def main():
    torch.manual_seed(0)
    out = {"sides": np.array(SIDES)}
    for number, (width, height) in enumerate(SIDES):
        blank = np.zeros((height, width, 3), np.uint8)
        (sizes, *_), _ = scales_of(blank, 50_000)
        out[f"sizes{number}"] = np.array(sizes)[:, ::-1]
    image = photograph()
    (sizes, losses, factor, count), images = scales_of(image, None)
    out |= {f"image{scale}": x for scale, x in enumerate(images[:-1])}
    out |= {"image": image, "losses": np.array(losses)}

    model = models.MultiScaleGaussianDiffusion(
        network,
        n_scales=count,
        scale_factor=factor,
        image_sizes=sizes,
        scale_losses=losses,
        train_full_t=True,
        device="cpu",
    )
    out["starts"] = np.array(model.num_timesteps_ideal)
    out["blur"] = model.gammas.numpy()

    rng = np.random.default_rng(0)
    x, enlarged = rng.standard_normal((2, 2, 6, 5, 3)).astype(np.float32)
    enlarged = np.tanh(enlarged)
    out |= {"x": x, "enlarged": enlarged}
    model.img_prev_upsample = nchw(enlarged)
    for scale, t in STEPS:
        times = torch.full((2,), t)
        mean, _, log_variance = model.p_mean_variance(nchw(x), times, scale, True)
        out[f"mean {scale} {t}"] = nhwc(mean)
        spread = (t > 0) * torch.exp(0.5 * log_variance).ravel()[0]
        out[f"spread {scale} {t}"] = spread.numpy()
    for scale in (1, 2):
        y, begin = nchw(x), model.num_timesteps_ideal[scale]
        for t in reversed(range(begin)):
            y = model.p_sample(y, torch.full((2,), t), scale)
        out[f"end {scale}"] = nhwc(y)

    # A region of interest, at the scale before the last.
    scale = count - 2
    height, width = images[scale].shape[:2]
    predicted = np.full((1, height, width, 3), 0.25, np.float32)
    shrunk = [int(side / factor ** (count - 1 - scale)) for side in BOXES[0]]
    floats = nchw(images[scale][None].astype(np.float32) / 127.5 - 1)
    model.roi_target_patch = [functions.extract_patch(floats, shrunk)] * count
    model.roi_bbs = BOXES[1:]
    out["regions"] = nhwc(model.roi_patch_modification(nchw(predicted), scale))
    out["boxes"] = np.array(BOXES)
    mask = np.zeros((1, 60, 50), np.float32)
    mask[:, 20:34, 15:30] = 1
    functions.morphology.binary_dilation = _renamed(functions.morphology)
    feathered = functions.dilate_mask(
        torch.tensor(mask).repeat(3, 1, 1), "harmonization"
    )
    out["mask"], out["feathered"] = mask[0], feathered[0, 0].astype(np.float32)
    np.savez_compressed(Path(__file__).parent / "sinddm.npz", **out)


def _renamed(morphology):
    """Call an option of binary_dilation by the name that it has today."""
    dilation = morphology.binary_dilation
    return lambda mask, selem: dilation(mask > 0, selem)


main()
