#!/usr/bin/env bash
# A segmentation of a tilted CT: dcmqi's segimage2itkimage writes no image, and says with its exit status that all went well.
#
# Found: `ERROR: Frame 0 origin … is outside image geometry!`, a JSON file of the segments without an image beside it, and exit status 0.
#   A script that looks at the status goes on with nothing. That the volume can't be written is right: its slices are sheared against
#   each other, and ITK's images have right angles. highdicom refuses it with an exception, SimpleITK reads it into a wrong place.
# Versions: dcmqi 1.5.7, on a file of highdicom 0.28.2.
# Date: 2026-11-30.
# Guess: an oversight: the error is printed where the frame is placed, and nothing carries it to the caller.
# Seen: while comparing what programs read of the segmentations that this project writes.
#
# Runs on a CT that it makes. Prints the status and what was written, and fails if that is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet dcmqi==1.5.7 highdicom==0.28.2 pydicom==3.0.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import math
import subprocess
import sys
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

TILT = math.radians(12)
study, series, frame = generate_uid(), generate_uid(), generate_uid()
slices = []
for z in range(7):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ct = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    ct.SOPClassUID, ct.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ct.StudyInstanceUID, ct.SeriesInstanceUID, ct.FrameOfReferenceUID = study, series, frame
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        setattr(ct, name, "")
    ct.AccessionNumber, ct.ReferringPhysicianName, ct.Modality, ct.InstanceNumber = "", "", "CT", z + 1
    ct.ImagePositionPatient = [0, 0, 2.5 * z]
    ct.ImageOrientationPatient = [1, 0, 0, 0, round(math.cos(TILT), 8), round(-math.sin(TILT), 8)]
    ct.PixelSpacing, ct.SliceThickness, ct.Rows, ct.Columns = [1, 1], 2.5, 16, 16
    slices.append(ct)
hd.seg.Segmentation(
    source_images=slices,
    pixel_array=np.ones((7, 16, 16), np.uint8),
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
).save_as("seg.dcm")
Path("out").mkdir()
arguments = ["--inputDICOM", "seg.dcm", "--outputDirectory", "out", "--prefix", "a", "-t", "nrrd"]
done = subprocess.run([Path(sys.executable).parent / "segimage2itkimage", *arguments], capture_output=True, text=True)
error = next(line for line in (done.stdout + done.stderr).splitlines() if line.startswith("ERROR"))
written = sorted(path.name for path in Path("out").iterdir())
print(f"{error}\nexit status {done.returncode}, written: {written}")
assert done.returncode == 0 and written == ["a-meta.json"], "no longer as it was found"
PYTHON
