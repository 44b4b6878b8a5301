"""Writes a CT volume and its mask again, changed as other sources change theirs, in TotalSegmentator's layout.

    python changed_volumes.py CT.nii.gz MASK.nii.gz FOLDER [EVERY]

Needs nibabel, numpy and scipy. Any label of the mask above 0 counts. FOLDER gets a patient for each change, of EVERY slices one
(1: all). The affine stays as it was, so that a mirrored or turned patient is one whose header is wrong.
"""

import sys
from functools import partial
from pathlib import Path

import nibabel
import numpy
from scipy import ndimage


def resampled(volume, factors, order):
    return ndimage.zoom(volume, factors, order=order, grid_mode=True, mode="nearest")


def windowed(hu, level, width):
    """What is left of CT that came as 8-bit pictures of a window."""
    low = level - width / 2
    return numpy.round(numpy.clip((hu - low) / width, 0, 1) * 255) / 255 * width + low


def cut(hu, mask):
    """The patient as a narrow field of view has him: the outer fifth of the organ's width is outside the picture."""
    columns = numpy.flatnonzero(mask.any((1, 2)))
    first, last = columns[0], columns[-1]
    fifth = (last - first) // 5
    if first < len(mask) - last:
        return hu[first + fifth :], mask[first + fifth :]
    return hu[: last - fifth], mask[: last - fifth]


def organ_by(hu, mask, change_hu):
    """The organ alone darker or brighter, as fat, iron or the contrast agent's phase have it."""
    return hu + change_hu * ndimage.gaussian_filter(mask.astype(numpy.float32), (1, 1, 0)), mask


def big_lesion(hu, mask, spacing_mm):
    """A ball of 8 cm, 60 HU darker, where the organ is thickest; it belongs to the organ."""
    depth = ndimage.distance_transform_edt(mask, sampling=spacing_mm)
    middle = numpy.unravel_index(depth.argmax(), mask.shape)
    places = numpy.indices(mask.shape, sparse=True)
    square = sum(((place - at) * mm) ** 2 for place, at, mm in zip(places, middle, spacing_mm))
    return hu - 60 * ((square <= 40**2) & (mask > 0)), mask


def first_half(hu, mask):
    """A scan that ends in the middle of the organ."""
    slices = numpy.flatnonzero(mask.any((0, 1)))
    middle = (slices[0] + slices[-1] + 1) // 2
    return hu[:, :, :middle], mask[:, :, :middle]


def last_half(hu, mask):
    """A scan that begins in the middle of the organ."""
    return tuple(volume[:, :, ::-1] for volume in first_half(hu[:, :, ::-1], mask[:, :, ::-1]))


CHANGES = {
    "as-it-is": lambda hu, mask: (hu, mask),
    "left-for-right": lambda hu, mask: (hu[::-1], mask[::-1]),
    "front-for-back": lambda hu, mask: (hu[:, ::-1], mask[:, ::-1]),
    "turned-180": lambda hu, mask: (hu[::-1, ::-1], mask[::-1, ::-1]),
    "turned-90": lambda hu, mask: (numpy.rot90(hu), numpy.rot90(mask)),
    "upside-down": lambda hu, mask: (hu[:, :, ::-1], mask[:, :, ::-1]),
    "darker": lambda hu, mask: (hu - 60, mask),
    "brighter": lambda hu, mask: (hu + 60, mask),
    "window-50-250": lambda hu, mask: (windowed(hu, 50, 250), mask),
    "window-40-200": lambda hu, mask: (windowed(hu, 40, 200), mask),
    "noisy": lambda hu, mask: (hu + numpy.random.default_rng(0).normal(0, 40, hu.shape), mask),
    "organ-darker": lambda hu, mask: organ_by(hu, mask, -30),
    "organ-brighter": lambda hu, mask: organ_by(hu, mask, 50),
    "cut": cut,
    "first-half": first_half,
    "last-half": last_half,
    "coarse-slices": lambda hu, mask: (hu[:, :, ::2], mask[:, :, ::2]),
    "coarse-pixels": lambda hu, mask: (resampled(hu, (0.5, 0.5, 1), 1), resampled(mask, (0.5, 0.5, 1), 0)),
}


def main(ct, truth, folder, every=1):
    image = nibabel.load(ct)
    every = int(every)
    unchanged = image.affine @ numpy.diag([1, 1, every, 1])
    hu = numpy.asarray(image.dataobj, dtype=numpy.float32)[:, :, ::every]
    mask = (numpy.asarray(nibabel.load(truth).dataobj) > 0).astype(numpy.uint8)[:, :, ::every]
    spacing_mm = numpy.linalg.norm(unchanged[:3, :3], axis=0)
    changes = {**CHANGES, "big-lesion": partial(big_lesion, spacing_mm=spacing_mm)}
    for name, change in changes.items():
        changed, changed_mask = change(hu, mask)
        patient = Path(folder) / name
        (patient / "segmentations").mkdir(parents=True, exist_ok=True)
        affine = unchanged
        if name.startswith("coarse"):
            affine = affine @ numpy.diag([*(numpy.array(hu.shape) / changed.shape), 1])
        nibabel.save(nibabel.Nifti1Image(changed.astype(numpy.int16), affine), patient / "ct.nii.gz")
        nibabel.save(nibabel.Nifti1Image(changed_mask, affine), patient / "segmentations" / "liver.nii.gz")


if __name__ == "__main__":
    main(*sys.argv[1:])
