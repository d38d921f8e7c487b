"""SSIM by scikit-image, as the project defines it."""

from skimage.metrics import structural_similarity


def reference_ssim(image, other, *, data_range=255):
    """Of one image [h, w, c] and another."""
    return structural_similarity(
        image,
        other,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=-1,
        data_range=data_range,
    )
