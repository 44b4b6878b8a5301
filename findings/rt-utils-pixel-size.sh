#!/usr/bin/env bash
# Contours of rt-utils: right only where pixels and slices are square, and half a pixel inside of the mask everywhere.
#
# Found: the distance between rows (the first of PixelSpacing) is taken for that between columns, and the other way round, so that on
#   pixels of 0.8 × 0.7 mm contours are stretched and squeezed; a mask that goes out and comes back by rt-utils alone is right again,
#   since both ways are wrong alike, and every other program sees another shape. And contours run through the centres of edge pixels:
#   the polygon of a disc of 12 pixels' radius has a radius of about 11.5.
# Versions: rt-utils 1.2.7, pydicom 3.0.2, numpy 2.4.6.
# Date: 2026-11-30.
# Guess: the first is a mistake in get_pixel_to_patient_transformation_matrix, where `row_direction * row_spacing` reads as if both words
#   meant the same; scanners' pixels are square, so nobody meets it. The second comes with OpenCV's findContours, and is meant.
# Seen: while comparing what programs read of the structure sets that this project writes, and it of theirs.
#
# Runs on a CT that it makes. Prints width, height and area of the contour, and fails if that is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet rt-utils==1.2.7 pydicom==3.0.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON' 2>/dev/null
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from rt_utils import RTStructBuilder

SIDE = 40


def contour(folder, spacing):
    """The contour of a disc of 12 pixels' radius on pixels of that spacing: between rows, between columns; mm."""
    Path(folder).mkdir()
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for z in range(2):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        ct = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        ct.SOPClassUID, ct.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ct.StudyInstanceUID, ct.SeriesInstanceUID, ct.FrameOfReferenceUID = study, series, frame
        ct.StudyDate, ct.StudyTime, ct.StudyID, ct.Modality, ct.InstanceNumber = "", "", "", "CT", z + 1
        ct.ImagePositionPatient, ct.ImageOrientationPatient = [0, 0, 2 * z], [1, 0, 0, 0, 1, 0]
        ct.PixelSpacing, ct.Rows, ct.Columns = spacing, SIDE, SIDE
        ct.SamplesPerPixel, ct.PhotometricInterpretation, ct.PixelRepresentation = 1, "MONOCHROME2", 0
        ct.BitsAllocated, ct.BitsStored, ct.HighBit = 16, 16, 15
        ct.PixelData = bytes(2 * SIDE * SIDE)
        ct.save_as(f"{folder}/{z}.dcm", enforce_file_format=True)
    y, x = np.mgrid[:SIDE, :SIDE]
    disc = np.hypot(x - 20, y - 20) < 12
    mask = np.zeros((SIDE, SIDE, 2), bool)
    mask[:, :, 0] = disc
    struct = RTStructBuilder.create_new(dicom_series_path=folder)
    struct.add_roi(mask=mask, name="disc")
    points = np.array(struct.ds.ROIContourSequence[0].ContourSequence[0].ContourData, float).reshape(-1, 3)[:, :2]
    next_ = np.roll(points, -1, axis=0)
    area = abs((points[:, 0] * next_[:, 1] - next_[:, 0] * points[:, 1]).sum()) / 2
    return *np.ptp(points, axis=0), area, disc.sum() * spacing[0] * spacing[1]


width, height, area, pixels = contour("square", [0.7, 0.7])
radii = [np.sqrt(mm2 / np.pi) / 0.7 for mm2 in (area, pixels)]
print(f"square pixels: the contour's radius is {radii[0]:.2f} pixels, the disc's {radii[1]:.2f}")
assert 0.35 < radii[1] - radii[0] < 0.65, "no longer as it was found"
width, height, *_ = contour("other", [0.8, 0.7])
# From the first edge pixel's centre to the last one's: 22 pixels.
print(f"0.8 mm between rows, 0.7 between columns: {width:.1f} mm wide and {height:.1f} high, expected {22 * 0.7:.1f} and {22 * 0.8:.1f}")
assert np.allclose([width, height], [22 * 0.8, 22 * 0.7], atol=0.01), "no longer as it was found"
PYTHON
