"""Write sifid.json: what SinGAN's own program computes with generated weights.

Needs torch, torchvision, scipy below 1.18 and the folder `SIFID` of SinGAN's public
program (made with 2.14.1, 0.29.1, 1.17.1), on a CPU:

    python tests/models/golden/make_sifid.py SIFID

Its network is torchvision's Inception-v3, whose first layers have the names and shapes
of those of the network for FID; here they get generated weights and run in float64.
Images reach the program as 8-bit arrays in place of files.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
import torchvision

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), sys.argv[1]]
import inception_weights  # noqa: E402

LAYERS = {"inception_64": 64, "inception": 192}


def network(pretrained: bool) -> torch.nn.Module:
    """Torchvision's module with generated weights in its first layers."""
    assert pretrained
    inception = torchvision.models.Inception3(init_weights=False)
    state = {k: torch.tensor(v) for k, v in inception_weights.stem().items()}
    missing = inception.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    return inception.double()


def main() -> None:
    pyplot = types.ModuleType("matplotlib.pyplot")
    pyplot.imread = lambda image: IMAGES[image]
    sys.modules["matplotlib"] = types.ModuleType("matplotlib")
    sys.modules["matplotlib.pyplot"] = pyplot
    torchvision.models.inception_v3 = network
    import inception
    import sifid_score

    torch.FloatTensor = torch.DoubleTensor
    golden = {}
    for name, size in LAYERS.items():
        block = inception.InceptionV3.BLOCK_INDEX_BY_DIM[size]
        model = inception.InceptionV3([block]).double()
        sides = [
            sifid_score.calculate_activation_statistics([key], model, 1, size)
            for key in IMAGES
        ]
        golden[name] = [
            float(sifid_score.calculate_frechet_distance(*sides[0], *other))
            for other in sides[1:]
        ]
    (HERE / "sifid.json").write_text(json.dumps(golden, indent=2) + "\n")


def _images() -> dict[str, np.ndarray]:
    images = inception_weights.sifid_images()
    return dict(zip(("real", *"abc"), images, strict=True))


IMAGES = _images()

if __name__ == "__main__":
    main()
