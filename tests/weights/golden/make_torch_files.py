"""Write tensors_*.pth: torch's formats of files, and what is in them as tensors.npz.

Needs torch (made with 2.14.1):

    python tests/weights/golden/make_torch_files.py

The names of storages in a stream are addresses in memory, so that its bytes differ from
run to run.
"""

from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent

rng = np.random.default_rng(0)
numbers = torch.from_numpy(rng.standard_normal((4, 6), dtype=np.float32))
tensors = {
    "float32": numbers,
    "float16": numbers.half(),
    "bfloat16": numbers.bfloat16(),
    "float64": numbers.double() / 3,
    "int64": torch.arange(-3, 3),
    "int32": torch.arange(6, dtype=torch.int32),
    "uint8": torch.arange(6, dtype=torch.uint8),
    "bool": numbers[0] > 0,
    "number": torch.tensor(7),
    "empty": torch.zeros(0, 3),
    "net.parameter": torch.nn.Parameter(numbers + 1),
    "net.transposed": (numbers + 2).T,
    "net.every_other": (numbers + 3)[1:, ::2],
    "net.same_storage": numbers[2:],
}
state = torch.nn.Linear(1, 1).state_dict()  # an OrderedDict with torch's metadata
state.clear()
state.update(tensors)
torch.save(state, HERE / "tensors_zip.pth")
torch.save(state, HERE / "tensors_stream.pth", _use_new_zipfile_serialization=False)

expected = {name: t.detach().to(torch.float32) for name, t in tensors.items()}
for name in ("float64", "float16", "int64", "int32", "uint8", "bool", "number"):
    expected[name] = tensors[name]
np.savez(HERE / "tensors.npz", **{n: t.numpy() for n, t in expected.items()})

# As torch wrote in 2017: a storage, an offset, a shape and strides, and no more.
torch.Tensor.__reduce_ex__ = lambda tensor, _: (
    torch._utils._rebuild_tensor,
    (
        tensor._typed_storage(),
        tensor.storage_offset(),
        tuple(tensor.shape),
        tensor.stride(),
    ),
)
torch.save(
    {name: tensors[name].detach() for name in ("float32", "net.transposed")},
    HERE / "tensors_2017.pth",
    _use_new_zipfile_serialization=False,
)
