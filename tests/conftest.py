"""What all tests share: four CPU devices, so that meshes are tested on any machine."""

import os

import jax

# Only before the first use of a device; a single-device test does not notice.
jax.config.update("jax_num_cpu_devices", 4)

# Kernels that this machine may have built are used only by the tests of them.
os.environ["DEEPPRISM_NATIVE"] = "0"
