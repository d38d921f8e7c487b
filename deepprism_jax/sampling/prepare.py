"""From options and a single-image model to a drawing: reads and checks what goes in."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepprism_jax.data.images import resized
from deepprism_jax.diffusion.guides import Box, feathered, region_guide
from deepprism_jax.diffusion.multiscale import GuideOfScale
from deepprism_jax.ops import to_float
from deepprism_jax.sampling.drawing import Advance, Drawing
from deepprism_jax.sampling.options import Options
from deepprism_jax.sampling.pictures import (
    Pixels,
    free_of,
    lines_of_given,
    read_given,
    size_of,
    with_colours_of,
)
from deepprism_jax.sampling.plan import Plan, as_box, by, make_plan
from deepprism_jax.sampling.runs import Run
from deepprism_jax.sampling.single_image import (
    Finish,
    Model,
    draw,
    per_device,
    times_of,
    work_of,
)
from deepprism_jax.sampling.trained_on_one import load_model
from deepprism_jax.training.preflight import PreflightError, plural, refusing
from deepprism_jax.training.sharding import make_mesh


@dataclass(frozen=True)
class Material:
    """What a drawing begins with, and is held to."""

    start: Any = None
    """Image in [-1, 1]; None is noise."""
    guide: GuideOfScale | None = None
    """What is done to predicted images."""
    finish: Finish = lambda x: x
    """What is done to drawn images."""
    pictures: dict[str, Pixels] = field(default_factory=dict)
    """What went in, to be written beside what comes out."""


def prepare(options: Options, run: Run) -> Drawing:
    """Load the model that is meant, and return what is asked of it as a drawing.

    Raises:
        PreflightError: the model cannot be loaded, or not be drawn from so.
    """
    with refusing():
        model = load_model(run, options.image)
    return make_drawing(options, model)


def make_drawing(options: Options, model: Model) -> Drawing:
    """Check what is asked of a model, and return it as a drawing.

    Raises:
        PreflightError: it cannot be drawn; with all problems, the value and the remedy.
    """
    if not model.has_image and (problems := tuple(needing_image(options, model.name))):
        raise PreflightError(*problems)
    given = read_given(options, model.image.shape[-1])
    plan = make_plan(
        options,
        model.process.sizes,
        model.process.schedule.steps,
        input_size=size_of(given.get("input")),
        mask_size=size_of(given.get("mask")),
    )
    if options.times:
        starts = np.array([model.process.starts[0], *options.times], np.int32)
        model = replace(model, process=model.process._replace(starts=starts))
    mesh = make_mesh(jax.devices()[: options.count])
    material = make_material(options, plan, model, given)
    work = work_of(model.process, plan)

    def images(advance: Advance) -> Iterator[Pixels]:
        return draw(
            model,
            plan,
            mesh,
            first=options.seed,
            count=options.count,
            batch=per_device(options.batch, plan.size, options.count, mesh.size),
            advance=advance,
            start=material.start,
            guide=material.guide,
            finish=material.finish,
            omega=options.omega,
        )

    return Drawing(
        count=options.count,
        first=options.seed,
        lines=lines_of(options, plan, model, given),
        facts=facts_of(plan, model),
        work=options.count * sum(work),
        images=images,
        pictures=material.pictures,
    )


def needing_image(options: Options, name: str) -> Iterator[str]:
    """Name what cannot be drawn without the training image."""
    told = f"needs the training image, and that of {name} does not come with the model"
    if options.from_scale and not options.input:
        yield f"--from-scale {told}: leave it out, or give --input"
    if options.roi:
        yield f"--roi {told}: draw from a run that you have trained"
    if options.input and options.match_histogram and not options.mask:
        yield f"giving --input its colours {told}: add --no-match-histogram"


def make_material(
    options: Options, plan: Plan, model: Model, given: dict[str, Pixels]
) -> Material:
    """Return what a plan begins with, of the model's pyramid or the images given.

    Raises:
        PreflightError: the mask has no white.
    """
    if "input" in given:
        return _of_input(options, plan, model, given)
    first, pyramid = plan.first_scale, model.pyramid
    start = pyramid.images[first - 1] if first > 0 else None
    if not plan.targets:
        return Material(start)
    source = as_box(options.roi)
    guide = region_guide(pyramid.images, source, plan.targets, plan.size)
    pasted = _pasted(_part(model.image, source), plan)
    return Material(start, guide, pictures={"regions.png": pasted})


def _of_input(
    options: Options, plan: Plan, model: Model, given: dict[str, Pixels]
) -> Material:
    image = resized(given["input"], plan.size)
    if "mask" not in given:
        if options.match_histogram:
            image = with_colours_of(image, model.image)
        return Material(to_float(jnp.asarray(image)), pictures={"input.png": image})
    free = free_of(given["mask"], options.mask, plan.size)
    share = feathered(free)[..., None]
    soft, start = jnp.asarray(share), to_float(jnp.asarray(image))
    return Material(
        start,
        finish=lambda x: soft * x + (1 - soft) * start,
        pictures={
            "input.png": image,
            "mask.png": np.round(255 * share).astype(np.uint8),
        },
    )


def _pasted(region: Pixels, plan: Plan) -> Pixels:
    """Return the region at its places, and white where all is free."""
    canvas = np.full((*plan.size, region.shape[-1]), 255, np.uint8)
    for target in plan.targets:
        place = _part(canvas, target)
        place[:] = resized(region, target[2:])
    return canvas


def _part(image: Pixels, box: Box) -> Pixels:
    top, left, height, width = box
    return image[top : top + height, left : left + width]


def lines_of(
    options: Options, plan: Plan, model: Model, given: dict[str, Pixels]
) -> tuple[str, ...]:
    """Say what will be drawn, and what was changed of the images that were given."""
    first, last = plan.first_scale, len(plan.sizes) - 1
    scales = f"scale {last}" if first == last else f"scales {first} ... {last}"
    begin = {
        "variation": f"from the training image at scale {first - 1}",
        "style": f"from {options.input}",
        "harmonise": f"from {options.input}, where the mask is white",
    }.get(plan.mode, "from noise")
    if plan.begin is not None:
        begin += f", with {plan.begin} of {model.process.schedule.steps} times of noise"
    if plan.targets:
        places = len(plan.targets)
        begin += f", with the region at {places} {plural(places, 'place')}"
    images = f"{options.count} {plural(options.count, 'image')}"
    lines = [
        f"{model.name}, step {model.step}: {images} of {by(plan.size)}, "
        f"{scales}, {begin}"
    ]
    if options.input:
        size, fitted = given["input"].shape[:2], ""
        if size != plan.size:
            fitted = (
                f"{options.input} is {by(size)} and is shrunk to "
                f"{by(plan.size)}; --scale-mul makes it larger"
            )
        elif options.scale_mul != (1, 1):
            fitted = (
                f"{options.input} stays {by(size)}: it is shrunk where --scale-mul "
                "allows fewer pixels, and never enlarged"
            )
        lines += lines_of_given(options, given, model.image.shape[-1], fitted)
        if options.match_histogram and not options.mask:
            lines.append(
                f"{options.input} gets the colours of the training image first; "
                "--no-match-histogram keeps its own"
            )
    return tuple(lines)


def facts_of(plan: Plan, model: Model) -> dict[str, Any]:
    """Return what `samples.json` says of a drawing."""
    return {
        "image": model.name,
        "step": model.step,
        "mode": plan.mode,
        "height": plan.size[0],
        "width": plan.size[1],
        "scales": [by(size) for size in plan.sizes],
        "first_scale": plan.first_scale,
        "times": times_of(model.process, plan),
    }
