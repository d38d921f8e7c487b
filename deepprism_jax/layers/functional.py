"""A module as a pure function of a flat dictionary of arrays.

Training, checkpoints and exports all hold a network's values as one dictionary from
dotted names to arrays, `{"encoder.body.0.conv1.kernel": ...}`. It is a plain pytree:
jit dispatches it fast, optax and Orbax take it as it is, safetensors stores it.
"""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import jax
from flax import nnx

Values = dict[str, jax.Array]

ModuleT = TypeVar("ModuleT", bound=nnx.Module)


class Functional(Generic[ModuleT]):
    """The structure of a module without its values.

    `values(...)` of the module taken apart, `bind(values)` puts any values of the same
    names and shapes into it, under `jax.jit` too.
    """

    def __init__(self, module: ModuleT):
        self._graph, state = nnx.split(module)
        self._variables = {
            ".".join(map(str, path)): (path, variable)
            for path, variable in nnx.to_flat_state(state)
        }

    @property
    def parameters(self) -> list[str]:
        """Names of what gradients train."""
        return [
            name
            for name, (_, variable) in self._variables.items()
            if isinstance(variable, nnx.Param)
        ]

    @property
    def buffers(self) -> list[str]:
        """Names of what is kept but not trained, such as moving averages."""
        trained = set(self.parameters)
        return [name for name in self._variables if name not in trained]

    @property
    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and type of every value."""
        return {
            name: jax.ShapeDtypeStruct(variable.shape, variable.dtype)
            for name, (_, variable) in self._variables.items()
        }

    @property
    def parameter_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and type of what gradients train."""
        shapes = self.shapes
        return {name: shapes[name] for name in self.parameters}

    @property
    def channel_axes(self) -> dict[str, int | None]:
        """Axis of every value that counts channels of feature maps; None without one.

        Where feature maps are cut over devices (`ops.channel_shards`), the value is cut
        along it in the same way; values without one are held whole by every device.
        """
        return {
            name: variable.get_metadata().get("channels")
            for name, (_, variable) in self._variables.items()
        }

    def bind(self, values: Mapping[str, Any]) -> ModuleT:
        """The module with these values; names must be exactly the module's.

        Raises:
            ValueError: names are missing or unknown; the message lists the first.
        """
        missing = sorted(set(self._variables) - set(values))
        unknown = sorted(set(values) - set(self._variables))
        if missing or unknown:
            raise ValueError(
                f"values do not fit the module: {len(missing)} missing {missing[:3]}, "
                f"{len(unknown)} unknown {unknown[:3]}"
            )
        state = nnx.from_flat_state(
            [
                (path, variable.replace(values[name]))
                for name, (path, variable) in self._variables.items()
            ]
        )
        return nnx.merge(self._graph, state)


def values_of(module: nnx.Module) -> dict[str, Any]:
    """All arrays of a module by their dotted names, on the device or the host."""
    return {
        ".".join(map(str, path)): variable[...]
        for path, variable in nnx.to_flat_state(nnx.state(module))
    }
