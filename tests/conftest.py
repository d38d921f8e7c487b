"""What all tests share: four CPU devices, so that meshes are tested on any machine."""

import jax

# Only before the first use of a device; a single-device test does not notice.
jax.config.update("jax_num_cpu_devices", 4)
