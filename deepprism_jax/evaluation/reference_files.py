"""Files of reference statistics, and the networks of a suite that they are of."""

from pathlib import Path

from deepprism_jax.evaluation.networks import Suite
from deepprism_jax.metrics.reference import Reference, load_reference


def load_references(
    path: Path, suite: Suite, image_size: tuple[int, int]
) -> dict[str, Reference]:
    """Load a reference for the network that it is of; the others leave the suite.

    Args:
        path: file of statistics.
        suite: networks that are at hand.
        image_size: height and width of the images evaluated on.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of none of the networks, or of images of another size.
    """
    problems, references = [], {}
    for distribution in suite.distributions:
        network = distribution.network
        features = network.shapes()["fc"]["kernel"].shape[0]
        try:
            reference = load_reference(
                path,
                network=network.name,
                weights=distribution.fingerprint,
                resize=network.resize,
            )
            if reference.statistics.mean.size != features:
                raise ValueError(
                    f"reference {path} has {reference.statistics.mean.size:,} "
                    f"features, and {network.name} has {features:,}: choose metrics "
                    "of the network that it was made with"
                )
        except ValueError as error:
            problems.append(str(error))
            continue
        references[distribution.key] = reference
    if not references:
        raise ValueError(
            problems[0]
            if problems
            else f"reference {path} serves no metric that can be measured here: "
            "get the weights of its network first"
        )
    for reference in references.values():
        _check_size(path, reference, image_size)
    left = [d for d in suite.distributions if d.key not in references]
    suite.skipped += [
        f"{', '.join(d.metrics.values())}: reference {path} is of another network"
        for d in left
    ]
    suite.distributions = [d for d in suite.distributions if d.key in references]
    return references


def _check_size(path: Path, reference: Reference, image_size: tuple[int, int]) -> None:
    origin = reference.provenance
    if origin is not None and tuple(origin.image_size) != tuple(image_size):
        (height, width), (here, across) = origin.image_size, image_size
        raise ValueError(
            f"reference {path} is of images of {height}x{width}, and these are "
            f"{here}x{across}: figures of different resolutions do not compare; make "
            "the reference from images of this size"
        )
