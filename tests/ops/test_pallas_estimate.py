"""Estimates of TPU kernels: the cycles of a listing; what is said without libtpu."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from entry_points import load_program

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

# Four bundles outside; a grid of 64 steps (66 trips, pipelined) of four bundles, of
# which one is empty; in each a loop to 16 by 4, of three bundles.
LISTING = """
LB: loop body
     0   :  { %s1 = smov 0 }
   0x1   :  { %s2 = smov 0 }
   0x2 LB: > { %s3 = sphi %s1, %s4 /* iteration index, stage = 1 */ }
   0x3   :  {} /* Start region 2 */
   0x4 LB: >> { %s6 = sadd.s32 4, %s5 /* copy */  ;;  %s5 = sphi %s2, %s6 }
   0x5   : > { %s8 = sadd.s32 1, %s7 }
   0x6   : >> { %p1 = scmp.ge.s32.totalorder (%p0), %s6, 16 /* loop exit test */
base_bounds: (1) */ }
   0x7   : >> { %9 = sbr.rel (!%p1) target = $region2 }
   0x8   : > { %p2 = scmp.ge.s32.totalorder %s4, 66 /* loop exit test */ }
   0x9   :  { %s4 = sadd.s32 1, %s3 }
   0xa   :  { %10 = shalt }
"""


@pytest.fixture
def tpu_bundles():
    return load_program("benchmarks/tpu_bundles.py")


def test_bundles_count_as_often_as_their_loops_run(tpu_bundles):
    assert tpu_bundles.cycles(LISTING) == 4 + 64 * (4 + 4 * 3)


def test_a_loop_without_a_constant_end_is_an_error(tpu_bundles):
    with pytest.raises(ValueError, match="exit test"):
        tpu_bundles.cycles(LISTING.replace("%s6, 16", "%s6, %s11"))


def test_without_the_compiler_the_program_says_what_to_install():
    if importlib.util.find_spec("libtpu"):
        pytest.skip("libtpu is installed here")
    program = str(BENCHMARKS / "tpu_estimate.py")
    run = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert run.returncode == 1
    assert "pip install 'deepprism_jax[tpu]'" in run.stderr
    assert "Traceback" not in run.stderr
