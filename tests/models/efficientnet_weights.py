"""EfficientNet-Lite0 with generated weights: the same numbers on every machine.

Raw bits of PCG64, whose stream NumPy guarantees, so that golden files need to hold only
outputs. Names and shapes come from torch's own module where those are made, and from
`weights.efficientnet` where they are compared.
"""

import numpy as np

SIZES = ("32x32", "40x56", "300x260")
"""Golden images: enlarged, and shrunk. They are those of `inception_weights`."""


def state_dict(shapes: dict[str, tuple[int, ...]], seed: int = 0):
    """Tensors that keep activations of order 1, some of them beyond ReLU6's 6."""
    stream = np.random.PCG64(seed)
    ranges = {
        "bias": (-0.5, 0.5),
        "running_mean": (-0.3, 0.3),
        "running_var": (0.5, 1.5),
    }
    state = {}
    for name, shape in sorted(shapes.items()):
        low, high = ranges.get(name.split(".")[-1], (0.5, 1.1))
        if len(shape) > 1:  # a kernel: what precedes most of them has no ReLU
            high = np.sqrt(6 / np.prod(shape[1:]))
            low = -high
        bits = stream.random_raw(int(np.prod(shape)))
        unit = (bits >> np.uint64(40)) / 2**24
        tensor = low + (high - low) * unit
        state[name] = tensor.astype(np.float32).reshape(shape)
    return state
