#!/usr/bin/env bash
# A DICOM segmentation of one bit a pixel: SimpleITK leaves the last pixels as they were in memory.
#
# Found: one-bit frames run on without padding, so all pixels together need not fill the last byte. SimpleITK unpacks whole bytes and
#   leaves the rest of the array, up to seven voxels at its end, uninitialised: they have values that are neither 0 nor 255, and others
#   the next time. Where rows × columns is a multiple of 8, as in scanners' slices, there is no rest.
# Versions: SimpleITK 2.5.7 (ITK 5.4 with its GDCM), on files of highdicom 0.28.2, read as they are meant by pydicom 3.0.2.
# Date: 2026-11-30.
# Guess: a fault of the one-bit path of GDCM in ITK: a length in bytes that is rounded down.
# Seen: while comparing what programs read of the segmentations that this project writes.
#
# Runs on a CT that it makes. Prints what SimpleITK has in the last voxels, and fails if that is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet SimpleITK==2.5.7 highdicom==0.28.2 pydicom==3.0.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

ROWS, COLUMNS, SLICES = 11, 9, 7
study, series, frame = generate_uid(), generate_uid(), generate_uid()
slices = []
for z in range(SLICES):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ct = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    ct.SOPClassUID, ct.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ct.StudyInstanceUID, ct.SeriesInstanceUID, ct.FrameOfReferenceUID = study, series, frame
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        setattr(ct, name, "")
    ct.AccessionNumber, ct.ReferringPhysicianName, ct.Modality, ct.InstanceNumber = "", "", "CT", z + 1
    ct.ImagePositionPatient, ct.ImageOrientationPatient = [0, 0, 2 * z], [1, 0, 0, 0, 1, 0]
    ct.PixelSpacing, ct.SliceThickness, ct.Rows, ct.Columns = [1, 1], 2, ROWS, COLUMNS
    slices.append(ct)
segmentation = hd.seg.Segmentation(
    source_images=slices,
    pixel_array=np.ones((SLICES, ROWS, COLUMNS), np.uint8),
    segmentation_type="BINARY",
    segment_descriptions=[
        hd.seg.SegmentDescription(1, "Liver", codes.SCT.Organ, codes.SCT.Liver, algorithm_type="MANUAL")
    ],
    series_instance_uid=generate_uid(),
    series_number=2,
    sop_instance_uid=generate_uid(),
    instance_number=1,
    manufacturer="none",
    manufacturer_model_name="none",
    software_versions="1",
    device_serial_number="1",
)
segmentation.save_as("seg.dcm")

pixels, rest = SLICES * ROWS * COLUMNS, SLICES * ROWS * COLUMNS % 8
assert (pydicom.dcmread("seg.dcm").pixel_array == 1).all()
print(f"{pixels} voxels, all of them 1: {pixels // 8} whole bytes and {rest} bits")
seen = set()
for attempt in range(200):
    # Memory that was used for something else before.
    used = [np.full(size, 0x5D, np.uint8) for size in (pixels, 1000, 4096, 100_000)]
    del used
    voxels = sitk.GetArrayFromImage(sitk.ReadImage("seg.dcm")).ravel()
    assert (voxels[:-rest] == 255).all()
    seen |= {tuple(voxels[-rest:].tolist())}
print(f"in 200 readings SimpleITK has in the last {rest} voxels: {sorted(seen)}; expected 255 in all of them")
assert seen != {(255,) * rest}, "no longer as it was found"
PYTHON
