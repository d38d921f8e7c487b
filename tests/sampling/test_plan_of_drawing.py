"""What `sample.py` settles and refuses before anything is drawn."""

from pathlib import Path

import pytest

from deepprism_jax.sampling.options import Options
from deepprism_jax.sampling.plan import make_plan
from deepprism_jax.training.preflight import PreflightError

# Balloons, as the pyramid's rule cuts them.
SIZES = ((48, 64), (67, 90), (95, 126), (133, 177), (186, 248))
INPUT, MASK = Path("photo.jpg"), Path("mask.png")


def plan(*, input_size=None, mask_size=None, **options):
    return make_plan(
        Options(**options), SIZES, 100, input_size=input_size, mask_size=mask_size
    )


def test_from_noise_all_scales_are_drawn():
    found = plan()
    assert (found.mode, found.first_scale, found.begin) == ("random", 0, None)
    assert found.sizes == SIZES


def test_height_and_width_are_multiplied_at_every_scale():
    found = plan(scale_mul=(0.5, 2.0))
    assert found.sizes[0] == (24, 128)
    assert found.size == (93, 496)


def test_a_model_can_draw_its_own_sizes_however_small():
    sizes = ((12, 16), (30, 40))
    assert make_plan(Options(), sizes, 100).sizes == sizes
    with pytest.raises(PreflightError, match=r"0 11x14, .* at least 12"):
        make_plan(Options(scale_mul=(0.9, 0.9)), sizes, 100)


def test_from_a_scale_the_training_image_is_varied():
    assert (plan(from_scale=2).mode, plan(from_scale=2).first_scale) == ("variation", 2)
    assert plan(from_scale=0).mode == "random"


def test_an_input_is_drawn_anew_at_the_last_scale():
    found = plan(input=INPUT, input_size=(100, 200))
    assert (found.mode, found.first_scale, found.begin) == ("style", 4, 15)
    assert found.size == (100, 200)
    masked = plan(input=INPUT, mask=MASK, input_size=(19, 99), mask_size=(19, 99))
    assert (masked.mode, masked.begin) == ("harmonise", 5)


def test_a_large_input_is_shrunk_to_the_area_of_the_training_image():
    height, width = plan(input=INPUT, input_size=(576, 1024)).size
    assert height * width <= 186 * 248
    assert (height + 1) * (width + 2) > 186 * 248
    assert width / height == pytest.approx(1024 / 576, rel=0.01)
    assert plan(input=INPUT, input_size=(561, 747)).size == SIZES[-1]
    larger = plan(input=INPUT, input_size=(576, 1024), scale_mul=(2.0, 2.0)).size
    assert larger[0] == pytest.approx(2 * height, abs=1)


def test_strength_is_a_fraction_of_all_times():
    size = {"input": INPUT, "input_size": (100, 100)}
    assert plan(strength=1.0, **size).begin == 100
    assert plan(strength=0.001, **size).begin == 1
    assert plan(strength=0.3, from_scale=1, **size).first_scale == 1


def test_targets_are_as_large_as_the_region_unless_said():
    found = plan(roi=(1, 2, 30, 40), roi_to=((5, 6), (7, 8, 50, 60)))
    assert found.mode == "region"
    assert found.targets == ((5, 6, 30, 40), (7, 8, 50, 60))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "--count 0 must be at least 1"),
        ({"seed": -1}, "--seed -1: seeds must lie in 0 ... "),
        ({"seed": 2**31 - 5}, "seeds must lie in 0 ... "),
        ({"batch": -1}, "--batch -1 must be at least 1, or 0"),
        ({"scale_mul": (0.0, 1.0)}, "--scale-mul 0 1 must be two numbers above 0"),
        ({"scale_mul": (1.0, float("nan"))}, "--scale-mul 1 nan must be"),
        ({"scale_mul": (0.3, 1.0)}, "--scale-mul 0.3 1 makes scale 0 14x64, and its"),
        ({"scale_mul": (1e300, 1.0)}, "above 0 and at most 10,000"),
        ({"scale_mul": (100.0, 100.0)}, "makes images of 18600x24800, and 89,478,485"),
        (
            {"from_scale": 5},
            "--from-scale 5 does not exist: the model has scales 0 ...",
        ),
        ({"from_scale": -1}, "--from-scale -1 does not exist"),
        ({"omega": 1.5}, "--omega 1.5 must lie in 0 ... 1"),
        ({"times": (5,)}, "--times 5 must be 4 numbers, one for every scale above"),
        ({"times": (5, 5, 5, 101)}, "--times 5 5 5 101 must lie in 0 ... 100"),
        (
            {"times": (5, 5, 5, 5), "input": INPUT, "input_size": (90, 90)},
            "--times is of no effect where --input is redrawn at scale 4 alone",
        ),
        ({"mask": MASK}, "--mask is for an image of yours: give --input too"),
        ({"strength": 0.5}, "--strength is for an image of yours: give --input too"),
        ({"input": INPUT, "strength": 0.0}, "--strength 0.0 must lie above 0"),
        ({"input": INPUT, "input_size": (16, 900)}, "least 17: choose a larger one"),
        (
            {
                "input": INPUT,
                "mask": MASK,
                "input_size": (60, 70),
                "mask_size": (70, 60),
            },
            "--mask is 70x60 and --input 60x70: draw the mask on an image of that size",
        ),
        ({"roi": (0, 0, 9, 9)}, "--roi needs --roi-to"),
        ({"roi_to": ((0, 0),)}, "--roi-to needs --roi"),
        ({"roi": (0, 0, 9), "roi_to": ((0, 0),)}, "--roi 0 0 9 must be four numbers"),
        ({"roi": (0, 0, 9, 9), "roi_to": ((0,),)}, "--roi-to 0 must be two numbers or"),
        (
            {"roi": (180, 0, 9, 9), "roi_to": ((0, 0),)},
            "--roi: box 180 0 9 9 (top left height width) must lie inside the training",
        ),
        (
            {"roi": (0, 0, 9, 9), "roi_to": ((0, 0), (0, 240))},
            "--roi-to: box 0 240 9 9 (top left height width) must lie inside drawn im",
        ),
        (
            {"roi": (0, 0, 9, 9), "roi_to": ((0, 0),), "from_scale": 4},
            "--from-scale 4 is the last, and --roi works at the scales before it",
        ),
        (
            {"roi": (0, 0, 9, 9), "roi_to": ((0, 0),), "input": INPUT},
            "--roi is drawn from noise: leave out --input",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(options, message):
    with pytest.raises(PreflightError) as caught:
        plan(**options)
    (problem,) = caught.value.problems
    assert message in problem
    assert "\n" not in problem


def test_a_wider_image_has_room_for_a_box_further_right():
    found = plan(roi=(0, 0, 9, 9), roi_to=((0, 240),), scale_mul=(1.0, 2.0))
    assert found.targets == ((0, 240, 9, 9),)


def test_all_problems_are_told_at_once():
    with pytest.raises(PreflightError) as caught:
        plan(count=0, from_scale=9)
    assert len(caught.value.problems) == 2


def test_a_model_of_one_scale_has_none_for_regions():
    with pytest.raises(PreflightError, match="this model has one scale"):
        make_plan(Options(roi=(0, 0, 9, 9), roi_to=((0, 0),)), SIZES[-1:], 100)
