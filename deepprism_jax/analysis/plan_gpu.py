"""GPUs described to their compiler: neither a GPU nor a driver is needed."""

from typing import Any

# What XLA asks a device for: from the data sheets and CUDA's table of capabilities.
CHIPS: dict[str, dict[str, Any]] = {
    "h100": {
        "name": '"NVIDIA H100 80GB HBM3"',
        "capability": "major: 9 feature_extension: ACCELERATED_FEATURES",
        "core_count": 132,
        "fpus_per_core": 128,
        "clock_rate_ghz": 1.98,
        "memory_bandwidth": 3352320000000,
        "l2_cache_size": 52428800,
        "shared_memory_per_core": 233472,
        "shared_memory_per_block_optin": 232448,
    },
    "a100": {
        "name": '"NVIDIA A100-SXM4-80GB"',
        "capability": "major: 8",
        "core_count": 108,
        "fpus_per_core": 64,
        "clock_rate_ghz": 1.41,
        "memory_bandwidth": 2039000000000,
        "l2_cache_size": 41943040,
        "shared_memory_per_core": 167936,
        "shared_memory_per_block_optin": 166912,
    },
}
MEMORY = 84_942_979_072
"""Bytes of memory of each of them, as CUDA reports them."""
HOST = 8
"""GPUs of a host with more than one."""
MISSING = (
    "there is no compiler for GPUs (jax-cuda12-plugin) in this environment: "
    "pip install -e '.[cuda]' brings it; a GPU is not needed"
)
"""What is said where there is no compiler."""
_COMMON = f"""
    threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
    shared_memory_per_block: 49152 device_memory_size: {MEMORY}
    registers_per_core_limit: 65536 registers_per_block_limit: 65536
    block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
    thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
    driver_version: "12.9.0" runtime_version: "12.9.0"
    compile_time_toolkit_version: "12.9.0" device_vendor: "NVIDIA Corporation"
"""


def described_gpus(chip: str, count: int = 1) -> list[Any]:
    """GPUs that are not there: to compile for, not to run on.

    Args:
        chip: one of `CHIPS`.
        count: up to `HOST`, or whole hosts.

    Raises:
        ValueError: there is no compiler for GPUs; says how to install it.
    """
    from jax.experimental import topologies

    facts = dict(CHIPS[chip])
    name, capability = facts.pop("name"), facts.pop("capability")
    numbers = " ".join(f"{key}: {value}" for key, value in facts.items())
    config = f"""
    gpu_device_info {{ name: {name} {_COMMON} {numbers}
        cuda_compute_capability {{ {capability} }} }}
    platform_name: "CUDA" device_description_str: {name}
    dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
    """
    hosts = max(count // HOST, 1)
    try:
        topology = topologies.get_topology_desc(
            platform="cuda",
            target_config=config,
            topology=f"1x{hosts}x{count // hosts}",
        )
    except Exception as error:  # without the compiler, of JAX's own class
        reason = str(error).splitlines()[0]
        raise ValueError(f"{MISSING} ({reason})") from error
    return list(topology.devices)
