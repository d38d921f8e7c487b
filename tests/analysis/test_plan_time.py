"""Time, as a compiler estimates it in the text of a program."""

import pytest

from deepprism_jax.analysis.chips import Speed
from deepprism_jax.analysis.plan_time import Work, estimated_work

CYCLES = 'backend_config={{"window_config":{{"estimated_cycles":"{0}","a":"1"}}}}'


def op(name, cycles):
    return f"  %{name} = f32[8]{{0:T(128)}} fusion(%p), {CYCLES.format(cycles)}"


# As libtpu 0.0.42.1 writes them, shortened.
PROGRAM = f"""\
HloModule jit__step, is_scheduled=true

%fused_computation.1 (param_0: f32[8]) -> f32[8] {{
  ROOT %add.0 = f32[8]{{0}} add(%param_0, %param_0)
}}

%body.2 (p: (s32[], f32[8])) -> (s32[], f32[8]) {{
{op("fusion.1", 100)}
  %kernel.1 = f32[8]{{0}} custom-call(%f), custom_call_target="tpu_custom_call", \
backend_config={{"custom_call_config":{{"bytes_accessed":"4000"}}}}
}}

%condition.3 (p: (s32[], f32[8])) -> pred[] {{
  %constant.1.clone = s32[]{{:T(128)}} constant(37)
  ROOT %lt.6 = pred[]{{:T(512)}} compare(%get.65, %constant.1.clone), direction=LT, a=1
}}

%waits.4 (p: (s32[], f32[8])) -> pred[] {{
{op("fusion.7", 3)}
  ROOT %lt.7 = pred[]{{:T(512)}} compare(%fusion.7, %get.66), direction=LT, a=1
}}

%branch.5 (p: f32[8]) -> f32[8] {{
{op("fusion.2", 7)}
}}

%branch.6 (p: f32[8]) -> f32[8] {{
{op("fusion.3", 70)}
}}

ENTRY %main.8_spmd (param.7: f32[8], param.8: f32[8]) -> f32[8] {{
{op("fusion.4", 1_000)}
  %copy-start = (f32[8]{{0}}, f32[8]{{0}}) copy-start(%param.8)
  %while.1 = (s32[], f32[8]) while(%tuple.1), condition=%condition.3, body=%body.2
  %while.2 = (s32[], f32[8]) while(%tuple.2), condition=%waits.4, body=%branch.5
  %conditional = f32[8] conditional(%i, %a, %b), branch_computations={{%branch.5, \
%branch.6}}, metadata={{op_name="jit(f)/cond"}}
  %call.1 = f32[8] call(%conditional), to_apply=%branch.6
  ROOT %all-reduce.1 = f32[8] all-reduce(%call.1), to_apply=%sum
}}
"""


def test_loops_count_as_often_as_they_run_and_branches_by_the_longest():
    cycles = 1_000 + 37 * 100 + (3 + 7) + 70 + 70
    assert estimated_work(PROGRAM) == Work(cycles, 37 * 4_000)


def test_the_time_of_kernels_is_that_of_what_they_move():
    work = Work(cycles=3e6, kernel_bytes=8e9)
    assert work.seconds(Speed(clock=1.5e9, bandwidth=800e9)) == pytest.approx(0.012)


def test_a_program_without_estimates_has_no_time():
    assert estimated_work(PROGRAM.replace("estimated_cycles", "cycles")) is None
