"""Writes a CT volume and its mask again, changed as other sources change theirs, in TotalSegmentator's layout.

    python changed_volumes.py CT.nii.gz MASK.nii.gz FOLDER [EVERY]

Needs nibabel, numpy and scipy. Any label of the mask above 0 counts. FOLDER gets a patient for each change, of EVERY slices one
(1: all). The affine stays as it was, so that a mirrored or turned patient is one whose header is wrong.
"""

import sys
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
    "cut": cut,
    "coarse-slices": lambda hu, mask: (hu[:, :, ::2], mask[:, :, ::2]),
    "coarse-pixels": lambda hu, mask: (resampled(hu, (0.5, 0.5, 1), 1), resampled(mask, (0.5, 0.5, 1), 0)),
}


def main(ct, truth, folder, every=1):
    image = nibabel.load(ct)
    every = int(every)
    spacing = image.affine @ numpy.diag([1, 1, every, 1])
    hu = numpy.asarray(image.dataobj, dtype=numpy.float32)[:, :, ::every]
    mask = (numpy.asarray(nibabel.load(truth).dataobj) > 0).astype(numpy.uint8)[:, :, ::every]
    for name, change in CHANGES.items():
        changed, changed_mask = change(hu, mask)
        patient = Path(folder) / name
        (patient / "segmentations").mkdir(parents=True, exist_ok=True)
        affine = spacing
        if name.startswith("coarse"):
            affine = affine @ numpy.diag([*(numpy.array(hu.shape) / changed.shape), 1])
        nibabel.save(nibabel.Nifti1Image(changed.astype(numpy.int16), affine), patient / "ct.nii.gz")
        nibabel.save(nibabel.Nifti1Image(changed_mask, affine), patient / "segmentations" / "liver.nii.gz")


if __name__ == "__main__":
    main(*sys.argv[1:])
