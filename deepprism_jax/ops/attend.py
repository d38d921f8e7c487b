"""Softmax attention over many tokens, on every platform, with memory linear in them.

| tokens | where | how |
|---|---|---|
| up to `MOST_TOKENS_AT_ONCE` | everywhere | the N x N matrix whole |
| more | CUDA, where cuDNN takes it | cuDNN's flash attention |
| more | TPU, where the kernel takes it | JAX's flash attention in Pallas |
| more | otherwise | chunks of queries, recomputed in the backward pass |

The two flash kernels were compiled ahead of time for an H100 and a v5e, and that for
TPUs is tested in interpret mode; neither was run where it belongs.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from deepprism_jax.ops import target

MOST_TOKENS_AT_ONCE = 1024
"""Up to this many tokens the N x N matrix is formed whole.

Forward and backward in float32 on one core of a CPU, chunks took this part of the time
and of the memory (beside the arrays) that the whole matrix takes:

| images, heads x size | tokens | time | memory |
|---|---|---|---|
| 8, 1 x 256 | 512 | 1.20 | 0.94 |
| 8, 1 x 256 | 1024 | 1.13 | 0.45 |
| 1, 1 x 256 | 1024 | 0.85 | 0.30 |
| 1, 4 x 64 | 1024 | 0.75 | 0.31 |
| 1, 1 x 256 | 4096 | 0.96 | 0.11 |
"""

_QUERIES_A_CHUNK = 256  # of 64 to 1024 the fastest, or near it, in all of those


def attend(
    q: Float[Array, "b m heads d"],
    k: Float[Array, "b n heads d"],
    v: Float[Array, "b n heads d"],
    *,
    most_tokens: int = MOST_TOKENS_AT_ONCE,
) -> Float[Array, "b m heads d"]:
    """softmax(q k^T / sqrt(d)) v over n tokens: eq. (4), see docs/paper.md.

    With more than `most_tokens` tokens the n x n matrix is never formed whole: memory
    grows with n instead of n^2, forward and backward. Where queries are but m of the
    tokens, so is that of a matrix m x n larger than that number squared. The numbers
    are the same up to rounding. The platform is chosen when the program is lowered.
    """
    pairs, queries = q.shape[1] * k.shape[1], min(_QUERIES_A_CHUNK, most_tokens)
    # A program for images of any size (`jax.export`) knows it no sooner than it runs.
    if isinstance(pairs, int):
        if pairs <= most_tokens**2:
            return jax.nn.dot_product_attention(q, k, v)
        queries = min(queries, q.shape[1])
    chunked = partial(chunked_attend, chunk=queries)
    flash = {}
    # Differentiation goes through every form that is offered, and JAX's kernel for TPUs
    # has no second derivatives: elsewhere it is not offered.
    own = q.shape == k.shape and target.is_here()
    if own and target.platform() == "tpu" and tpu_flash_takes(q):
        flash["tpu"] = tpu_flash
    if own and cudnn_flash_takes(q) and _is_on_cudnn():
        flash["cuda"] = cudnn_flash
    if not flash:
        return chunked(q, k, v)
    return lax.platform_dependent(q, k, v, **flash, default=chunked)


def chunked_attend(
    q: jax.Array, k: jax.Array, v: jax.Array, *, chunk: int
) -> jax.Array:
    """Attend with `chunk` queries at a time, each chunk recomputed going back."""
    batch, tokens, heads, size = q.shape
    count = -(-tokens // chunk)
    padded = jnp.pad(q, [(0, 0), (0, count * chunk - tokens), (0, 0), (0, 0)])
    chunks = padded.reshape(batch, count, chunk, heads, size).swapaxes(0, 1)

    @jax.checkpoint
    def attend_chunk(queries):
        return jax.nn.dot_product_attention(queries, k, v)

    y = lax.map(attend_chunk, chunks).swapaxes(0, 1)
    return y.reshape(batch, count * chunk, heads, size)[:, :tokens]


def cudnn_flash_takes(q: jax.Array) -> bool:
    """Return whether cuDNN has a kernel for [B, N, heads, d] and its gradient."""
    _, tokens, _, size = q.shape
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    return half and size % 8 == 0 and size <= 128 and tokens % 2 == 0


def _is_on_cudnn() -> bool:
    # JAX asks the GPU that is there for its abilities as soon as the call is traced,
    # so elsewhere, and in programs compiled for a GPU elsewhere, it is not offered.
    if jax.default_backend() != "gpu":
        return False
    device = jax.local_devices()[0]
    on_cuda = "cuda" in device.client.platform_version
    return on_cuda and float(device.compute_capability) >= 8.0


def cudnn_flash(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Attend by cuDNN's kernel, on NVIDIA GPUs from compute capability 8.0."""
    return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")


_TPU_BLOCKS = (512, 256, 128)


def tpu_flash_takes(q: jax.Array) -> bool:
    """Return whether JAX's kernel for TPUs takes [B, N, heads, d].

    It does not say over which mesh axes its results vary, as `jax.shard_map` asks with
    its checks on: there, chunks. A program for several TPUs must hold it inside
    `jax.shard_map`, as training does: XLA cannot divide a kernel that it does not know.
    """
    _, tokens, _, size = q.shape
    known = q.dtype in (jnp.bfloat16, jnp.float32)
    fits = size % 8 == 0 and size <= 256 and tokens % _TPU_BLOCKS[-1] == 0
    # Made like an operand, a scalar has its mesh axes.
    own, common = jnp.zeros_like(q, shape=()), jnp.zeros((), q.dtype)
    return known and fits and jax.typeof(own) == jax.typeof(common)


def tpu_flash(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Attend by JAX's Pallas kernel for TPUs."""
    # Imported late: few programs have so many tokens, and Pallas takes its time.
    from jax.experimental.pallas.ops.tpu import flash_attention as kernel

    tokens, size = q.shape[1], q.shape[3]
    block = next(block for block in _TPU_BLOCKS if tokens % block == 0)
    blocks = kernel.BlockSizes(
        block_q=block,
        block_k_major=block,
        block_k=block,
        block_b=1,
        block_q_major_dkv=block,
        block_k_major_dkv=block,
        block_k_dkv=block,
        block_q_dkv=block,
        block_k_major_dq=block,
        block_k_dq=block,
        block_q_dq=block,
    )
    heads_first = (a.swapaxes(1, 2) for a in (q, k, v))
    y = kernel.flash_attention(*heads_first, sm_scale=size**-0.5, block_sizes=blocks)
    return y.swapaxes(1, 2)
