"""Kernels in C++ for CPUs, built on request and never needed.

    python -m deepprism_jax.ops.native

compiles them for this machine. From then on the channel convolution, GroupNorm and the
depthwise convolution use them on CPUs wherever a shape fits, inside the same functions
with the same results up to rounding. XLA cannot shift channels between registers; these
kernels can.
"""
