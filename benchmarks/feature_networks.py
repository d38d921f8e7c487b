"""Images a second of the networks behind LPIPS, IS, FID and their like.

    python benchmarks/feature_networks.py --batch-size 8
    taskset -c 0 python benchmarks/feature_networks.py --json figures.json

From 8-bit images to distances or features, resizing included: LPIPS of SqueezeNet at
32 and 64 px; Inception-v3 of FID (299 px) and EfficientNet-Lite0 (224 px) from images
of 32 px. Beside them stand, where they are installed, the lpips package,
torch-fidelity and efficientnet-lite-pytorch, in both memory layouts of torch. All get
the same weights, which are random: speed does not depend on them. Subjects take turns
and the median of each is printed: read the ratios. Results are checked first.
"""

import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from plotting import draw_bars
from report import Report, table
from timing import Timing, interleave

from deepprism_jax.image_features import ImageFeatureNetwork
from deepprism_jax.metrics.lpips import lpips
from deepprism_jax.models.efficientnet import EFFICIENTNET_LITE0
from deepprism_jax.models.feature_networks import SQUEEZENET
from deepprism_jax.models.inception import INCEPTION
from deepprism_jax.training.allocator import keep_memory
from deepprism_jax.weights import efficientnet, inception, torchvision

Network = Literal["lpips", "inception", "efficientnet_lite0"]
State = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]

PEERS: dict[Network, tuple[str, str]] = {
    "lpips": ("lpips", "lpips"),
    "inception": ("torch_fidelity", "torch-fidelity"),
    "efficientnet_lite0": ("efficientnet_lite_pytorch", "efficientnet-lite-pytorch"),
}
"""Who else has the network: the module, and what installs it beside torch."""

LAYOUTS = ("contiguous", "channels_last")

_SIZES: dict[Network, tuple[int, ...]] = {"lpips": (32, 64)}
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Options(Timing, Report):
    """What to measure."""

    networks: tuple[Network, ...] = ("lpips", "inception", "efficientnet_lite0")
    """Which networks."""
    batch_size: int = 8
    """Images, or pairs of them, a call."""
    torch: bool = True
    """Measure the torch packages too, where they are installed."""
    bursts: int = 5
    budget: float = 20.0


@dataclass(frozen=True)
class Subject:
    """A network at one size of images, in one implementation."""

    network: Network
    size: int
    name: str
    run: Callable[[], Sequence[Any]]
    """Returns arrays with a row for every image."""

    @property
    def label(self) -> str:
        """Network, size and implementation."""
        return f"{self.network}, {self.size} px, {self.name}"


def random_state(shapes: Shapes) -> State:
    """Tensors in torch's layout; heads of LPIPS and variances are positive."""
    draw = np.random.default_rng(0).normal
    state = {}
    for name, shape in shapes.items():
        values = draw(size=shape)
        if len(shape) == 1:
            positive = name.endswith(("running_var", "weight"))
            values = 1 + 0.1 * np.tanh(values) if positive else 0.1 * values
        elif name.startswith("lin"):
            values = np.abs(values)
        else:
            values *= np.sqrt(2 / np.prod(shape[1:]))
        state[name] = values.astype(np.float32)
    return state


def lpips_state() -> State:
    """SqueezeNet's tensors, and the heads by the names of the lpips package."""
    heads = {
        f"lin{layer}.model.1.weight": (1, channels, 1, 1)
        for layer, channels in enumerate(SQUEEZENET.channels)
    }
    return random_state({**torchvision.torch_shapes(SQUEEZENET), **heads})


def jax_lpips(state: State, pair: Sequence[np.ndarray]) -> Callable[[], Any]:
    """LPIPS of this package."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        np.savez(path, **state)  # pyright: ignore[reportArgumentType]
        distance = torchvision.load_perceptual_distance("squeeze", path, path)
    measure = jax.jit(partial(lpips, distance=distance))
    images = jax.device_put(tuple(pair))
    frozen = distance.frozen
    return lambda: (jax.block_until_ready(measure(*images, frozen=frozen)),)


def jax_features(
    network: ImageFeatureNetwork, params: Any, images: np.ndarray
) -> Callable[[], Any]:
    """Pooled features and logits of this package."""
    apply = jax.jit(network.apply)
    params, on_device = jax.device_put((params, images))
    return lambda: jax.block_until_ready(apply(params, on_device))


def network_subjects(
    network: Network, size: int, options: Options, with_torch: bool
) -> list[Subject]:
    """Ours, then the peer in both layouts where it is there."""
    draw = np.random.default_rng(1).integers
    shape = (options.batch_size, size, size, 3)
    pair = [draw(0, 256, shape).astype(np.uint8) for _ in range(2)]
    match network:
        case "lpips":
            state = lpips_state()
            ours, inputs = jax_lpips(state, pair), pair
        case "inception":
            shapes = INCEPTION.shapes()
            bias = {"fc.bias": shapes["fc"]["kernel"].shape[-1:]}
            state = random_state({**inception.torch_shapes(shapes), **bias})
            params = inception.place(shapes, state, "random weights")
            ours, inputs = jax_features(INCEPTION, params, pair[0]), pair[:1]
        case "efficientnet_lite0":
            state = random_state(efficientnet.torch_shapes())
            params = efficientnet.place(state, "random weights")
            ours, inputs = jax_features(EFFICIENTNET_LITE0, params, pair[0]), pair[:1]
    made = [Subject(network, size, "JAX", ours)]
    if with_torch:
        import torch_features

        for layout in LAYOUTS:
            peer = torch_features.run(network, state, inputs, layout)
            made.append(Subject(network, size, f"torch {layout}", peer))
    return made


def subjects(options: Options) -> list[Subject]:
    """All that is measured, checked against each other."""
    made = []
    for network in options.networks:
        module, package = PEERS[network]
        lacking = [
            name
            for found, name in ((module, package), ("torch", "torch"))
            if importlib.util.find_spec(found) is None
        ]
        if options.torch and lacking:
            print(f"{network} without its peer: pip install {' '.join(lacking)}")
        for size in _SIZES.get(network, (32,)):
            with_torch = options.torch and not lacking
            group = network_subjects(network, size, options, with_torch)
            for other in group[1:]:
                check(other.label, other.run(), group[0].run())
            made += group
    return made


def check(label: str, found: Sequence[Any], wanted: Sequence[Any]) -> None:
    """Stop where a result is not what it should be."""
    for value, expected in zip(found, wanted, strict=True):
        value, expected = (np.asarray(array) for array in (value, expected))
        difference = np.abs(value - expected).max() / np.abs(expected).max()
        if not difference < _TOLERANCE:
            raise SystemExit(f"error: {label} differs by {difference:.1e}")


def main(options: Options) -> None:
    """Measure, print, and write what is asked for."""
    options.check()
    if options.batch_size < 1:
        raise SystemExit(
            f"error: --batch-size {options.batch_size}: at least one is needed"
        )
    keep_memory()
    measured = subjects(options)
    runs = {number: subject.run for number, subject in enumerate(measured)}
    milliseconds = interleave(runs, options)
    rates = {n: 1e3 * options.batch_size / time for n, time in milliseconds.items()}
    rows, lines, ours = [], [], 1.0
    for number, subject in enumerate(measured):
        rate = rates[number]
        ours = rate if subject.name == "JAX" else ours
        lines.append((subject.label, f"{rate:.1f}", f"{ours / rate:.2f}"))
        rows.append(
            {
                "network": subject.network,
                "size": subject.size,
                "name": subject.name,
                "per_second": rate,
                "milliseconds": milliseconds[number],
            }
        )
    title = f"feature networks, batch {options.batch_size}, {options.clock_used} time"
    table(title, ("", "images or pairs/s", "JAX / this"), lines)
    options.write_json("feature_networks", clock=options.clock_used, rows=rows)
    if options.plot:
        figures = {measured[n].label: rate for n, rate in rates.items()}
        draw_bars(options.plot, title, {"images or pairs a second": figures})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
