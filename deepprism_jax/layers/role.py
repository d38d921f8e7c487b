"""What a layer does with channels that are cut over devices (`ops.channel_shards`)."""

from typing import Any, Literal

from deepprism_jax.ops import channel_shards

Role = Literal["hidden", "in", "out", "whole"]
"""`hidden`: from feature maps to feature maps, cut. `in`: from an image or a latent,
whole on every device, to feature maps; `out`: back. `whole`: never cut."""


def shards_for(role: Role) -> channel_shards.Shards | None:
    """Return how the channels of a layer in this role are cut here, None if not."""
    return None if role == "whole" else channel_shards.current()


def cut_along(axis: int | None) -> dict[str, Any]:
    """Metadata of a parameter whose `axis` counts channels of feature maps."""
    return {} if axis is None else {"channels": axis}
