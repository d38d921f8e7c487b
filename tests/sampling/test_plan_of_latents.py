"""What `sample.py` settles and refuses of a model of latents before drawing."""

from pathlib import Path

import pytest

from deepprism_jax.sampling.asked import foreign
from deepprism_jax.sampling.latent_plan import Abilities, make_latent_plan
from deepprism_jax.sampling.options import Options
from deepprism_jax.training.preflight import PreflightError

CAN = Abilities(1000, (32, 32), 4, 4, ("bird", "cat", "dog"))
WITHOUT = Abilities(100, (32, 32), 4, 4)
INPUT, MASK = Path("photo.jpg"), Path("mask.png")


def plan(can=CAN, *, input_size=None, mask_size=None, **options):
    return make_latent_plan(
        Options(**options), can, input_size=input_size, mask_size=mask_size
    )


def test_all_classes_take_turns_by_seed():
    found = plan()
    assert (found.mode, found.size, found.strength) == ("random", (32, 32), 1.0)
    assert (found.sampler, found.steps, found.repeats) == ("ddim", 50, 1)
    assert [found.label_of(seed) for seed in (0, 1, 2, 3, 1000)] == [0, 1, 2, 0, 1]
    assert plan(WITHOUT).label_of(5) == -1
    assert plan(WITHOUT, sampler="ddpm").steps == 100


def test_classes_are_named_or_numbered():
    assert plan(classes=("dog", "0")).labels == (2, 0)


def test_an_input_keeps_its_shape_within_the_pixels_of_training():
    assert plan(input=INPUT, input_size=(32, 32)).size == (32, 32)
    found = plan(input=INPUT, input_size=(480, 1920))
    assert (found.mode, found.size, found.strength) == ("variation", (16, 64), 0.6)
    assert plan(input=INPUT, input_size=(99, 99), size=(64, 80)).size == (64, 80)
    masked = plan(input=INPUT, mask=MASK, input_size=(32, 32), mask_size=(32, 32))
    assert (masked.mode, masked.strength, masked.repeats) == ("inpaint", 1.0, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "--steps 0 must lie in 1 ... 1000"),
        ({"steps": 1001}, "--steps 1001 must lie in 1 ... 1000"),
        ({"eta": 0.5, "sampler": "heun"}, "--eta is for --sampler ddim, and this is h"),
        ({"eta": 1.5}, "--eta 1.5 must lie in 0 ... 1"),
        ({"guidance": -1.0}, "--guidance -1 must be a number from 0 up"),
        ({"guidance": 2.0, "can": WITHOUT}, "--guidance 2 needs classes, and the mod"),
        ({"classes": ("3",)}, "--classes 3: the model knows 0 ... 2, bird, cat, dog"),
        ({"classes": ("-1",)}, "--classes -1: the model knows 0 ... 2"),
        ({"classes": ("catt",)}, "--classes catt: perhaps you meant cat"),
        (
            {"classes": ("cat",), "can": WITHOUT},
            "--classes cat: the model knows no cla",
        ),
        (
            {"size": (30, 64)},
            "--size 30 64 must be multiples of 16, the autoencoder's 4",
        ),
        ({"size": (30, 64)}, "the nearest is 32 64"),
        ({"size": (0, 16)}, "the nearest is 16 16"),
        ({"size": (16000, 16000)}, "makes images of 16000x16000"),
        ({"repeats": 2}, "--repeats fits what is new to what is known: give --input"),
        ({"strength": 0.5}, "--strength is for an image of yours: give --input too"),
        ({"count": 0}, "--count 0 must be at least 1"),
        (
            {"input": INPUT, "input_size": (32, 32), "strength": 0.005},
            "--strength 0.005 of 50 steps is none: choose at least 0.02",
        ),
        (
            {"input": INPUT, "mask": MASK, "input_size": (1, 2), "mask_size": (2, 1)},
            "--mask is 2x1 and --input 1x2: draw the mask on an image of that size",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(options, message):
    with pytest.raises(PreflightError) as caught:
        plan(**options)
    (problem,) = caught.value.problems
    assert message in problem
    assert "\n" not in problem


def test_options_of_other_kinds_are_refused_by_name():
    options = Options(scale_mul=(2.0, 2.0), match_histogram=False, steps=5)
    told = list(foreign(options, "ldm"))
    assert [line.split()[0] for line in told] == ["--scale-mul", "--match-histogram"]
    (line,) = foreign(options, "sinddm")
    assert line.startswith("--steps is for latent diffusion, and this is a run of the")
    assert not list(foreign(Options(count=3, seed=7, npz=True), "ldm"))
