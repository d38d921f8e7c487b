"""From options and a model of latents to a drawing: reads and checks what goes in."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool

from deepprism_jax.data.images import resized
from deepprism_jax.diffusion.guidance import covered, repeated
from deepprism_jax.diffusion.pyramid import Size
from deepprism_jax.diffusion.samplers import make_stepper, spaced
from deepprism_jax.evaluation.latent.ways import PIXELS_AT_ONCE, POSITIONS_AT_ONCE
from deepprism_jax.evaluation.options import LAST_SEED
from deepprism_jax.evaluation.setup import FailedError
from deepprism_jax.layers.functional import values_of
from deepprism_jax.ops import to_float
from deepprism_jax.sampling.drawing import Advance, Drawing
from deepprism_jax.sampling.latent_model import LatentModel, load_latent_model
from deepprism_jax.sampling.latent_plan import LatentPlan, make_latent_plan
from deepprism_jax.sampling.options import Options
from deepprism_jax.sampling.pictures import (
    Pixels,
    free_of,
    lines_of_given,
    read_given,
    size_of,
)
from deepprism_jax.sampling.plan import by
from deepprism_jax.sampling.runs import Run
from deepprism_jax.sampling.single_image import per_device
from deepprism_jax.training.ldm.drawing import Decoder, Drawer, Given
from deepprism_jax.training.ldm.encoding import make_encode
from deepprism_jax.training.preflight import plural, refusing
from deepprism_jax.training.sharding import make_mesh


@dataclass(frozen=True)
class Material:
    """What a drawing begins with, and is held to."""

    given: Given | None = None
    """In latents."""
    image: Pixels | None = None
    """The image that is kept where `free` is not."""
    free: Bool[np.ndarray, "h w"] | None = None
    pictures: dict[str, Pixels] = field(default_factory=dict)
    """What went in, to be written beside what comes out."""

    def finish(self, pixels: Pixels) -> Pixels:
        """Return the drawn image, and what is known of it to the last bit."""
        if self.image is None or self.free is None:
            return pixels
        return np.where(self.free[..., None], pixels, self.image)


def prepare_latent(options: Options, run: Run) -> Drawing:
    """Load the model of a run, and return what is asked of it as a drawing.

    Raises:
        PreflightError: the model cannot be loaded, or not be drawn from so.
    """
    with refusing():
        model = load_latent_model(run)
    return make_latent_drawing(options, model)


def make_latent_drawing(options: Options, model: LatentModel) -> Drawing:
    """Check what is asked of a model, and return it as a drawing.

    Raises:
        PreflightError: it cannot be drawn; with all problems, the value and the remedy.
    """
    given = read_given(options, model.channels)
    plan = make_latent_plan(
        options,
        model.can,
        input_size=size_of(given.get("input")),
        mask_size=size_of(given.get("mask")),
    )
    material = make_material(options, plan, model, given)
    mesh = make_mesh(jax.devices()[: options.count])
    seeds = range(options.seed, options.seed + options.count)
    labels = [plan.label_of(seed) for seed in seeds]
    steps = round(plan.strength * plan.steps)

    def images(advance: Advance) -> Iterator[Pixels]:
        return draw(options, plan, model, material, mesh, advance)

    return Drawing(
        count=options.count,
        first=options.seed,
        lines=lines_of(options, plan, model, given),
        facts=facts_of(plan, model),
        work=options.count * steps,
        images=images,
        pictures=material.pictures,
        labels=labels,
        rows=[model.can.classes[label] for label in labels] if plan.labels else [],
    )


def draw(
    options: Options,
    plan: LatentPlan,
    model: LatentModel,
    material: Material,
    mesh: Mesh,
    advance: Advance,
) -> Iterator[Pixels]:
    """Draw the images of the seeds that are asked for, in order.

    Raises:
        FailedError: the model gave no numbers.
    """
    drawer = Drawer(
        model.network,
        model.schedule,
        mesh,
        target=model.target,
        stepper=repeated(make_stepper(plan.sampler, plan.eta), plan.repeats),
        times=spaced(model.can.times, plan.steps),
        guidance=plan.guidance,
        strength=plan.strength,
    )
    decoder, values = Decoder(model.autoencoder, mesh), values_of(model.network)
    size, count = latent_size(plan.size, model), options.count
    each = per_device(options.batch, size, count, mesh.size, POSITIONS_AT_ONCE)
    together = each * mesh.size
    for place in range(0, count, together):
        wanted = min(together, count - place)
        first = options.seed + place
        # Those past the last fill up the batch.
        seeds = np.minimum(np.arange(first, first + together), LAST_SEED)
        labels = None
        if plan.labels:
            labels = np.array([plan.label_of(int(seed)) for seed in seeds])
        latents = drawer.draw(
            values,
            seeds,
            labels,
            size,
            given=material.given,
            advanced=lambda steps, wanted=wanted: advance(steps * wanted),
        )
        at_once = per_device(0, plan.size, wanted, mesh.size, PIXELS_AT_ONCE)
        pixels, finite = decoder.decode(np.asarray(latents)[:wanted], at_once)
        if not finite.all():
            raise FailedError(
                f"{model.name} at step {model.step} draws no numbers; take an earlier "
                "checkpoint, WORKDIR/checkpoints/STEP"
            )
        yield from map(material.finish, pixels)


def latent_size(size: Size, model: LatentModel) -> Size:
    """Return height and width of the latents of images."""
    factor = model.can.autoencoder_factor
    return size[0] // factor, size[1] // factor


def make_material(
    options: Options, plan: LatentPlan, model: LatentModel, given: dict[str, Pixels]
) -> Material:
    """Return what a plan begins with, of the images given.

    Raises:
        PreflightError: the mask has no white.
    """
    if "input" not in given:
        return Material()
    image = resized(given["input"], plan.size)
    latent = encoded(image, model)
    if "mask" not in given:
        return Material(Given(latent), pictures={"input.png": image})
    free = free_of(given["mask"], options.mask, plan.size)
    there = covered(free, model.can.autoencoder_factor)[..., None]
    written = np.where(free, np.uint8(255), np.uint8(0))[..., None]
    pictures = {"input.png": image, "mask.png": written}
    return Material(Given(latent, there), image, free, pictures)


def encoded(image: Pixels, model: LatentModel) -> np.ndarray:
    """Return the latent of an image [h, w, c], of a posterior the mean."""
    if model.autoencoder is None:
        return np.asarray(to_float(jnp.asarray(image)))
    encode = make_encode(model.autoencoder, make_mesh(jax.devices()[:1]))
    return encode(image[None])[0][0]


def lines_of(
    options: Options, plan: LatentPlan, model: LatentModel, given: dict[str, Pixels]
) -> tuple[str, ...]:
    """Say what will be drawn, and what was changed of the images that were given."""
    begin = {
        "random": "from noise",
        "variation": f"from {options.input}",
        "inpaint": f"where {options.mask} is white",
    }[plan.mode]
    taken = round(plan.strength * plan.steps)
    steps = f"{taken} {plural(taken, 'step')} of {plan.sampler}"
    if taken < plan.steps:
        steps = f"the last {taken} of {plan.steps} steps of {plan.sampler}"
    if plan.guidance != 1:
        steps += f", guidance {plan.guidance:g}"
    images = f"{options.count} {plural(options.count, 'image')}"
    lines = [
        f"{model.name}, step {model.step}: {images} of {by(plan.size)}, {begin}, "
        f"{steps}"
    ]
    if plan.labels:
        names = [model.can.classes[label] for label in plan.labels]
        some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        turns = " in turn" if len(names) > 1 else ""
        lines.append(f"{plural(len(names), 'class')}{turns}: {some}")
    if options.input:
        size, fitted = given["input"].shape[:2], ""
        if size != plan.size:
            fitted = (
                f"{options.input} is {by(size)} and becomes {by(plan.size)}; --size "
                "makes it another"
            )
        lines += lines_of_given(options, given, model.channels, fitted)
    return tuple(lines)


def facts_of(plan: LatentPlan, model: LatentModel) -> dict[str, Any]:
    """Return what `samples.json` says of a drawing."""
    return {
        "step": model.step,
        "mode": plan.mode,
        "height": plan.size[0],
        "width": plan.size[1],
        "latent": [*latent_size(plan.size, model), model.network.options["channels"]],
        "sampler": plan.sampler,
        "steps": plan.steps,
        "eta": plan.eta,
        "guidance": plan.guidance,
        "strength": plan.strength,
        "repeats": plan.repeats,
        "classes": [model.can.classes[label] for label in plan.labels],
    }
