"""What other programs read of our files, and files that they write: for tests/programs.rs.

One JSON object per line of standard input, one of standard output for each:

    {"read": "seg" | "nrrd" | "rtstruct", "path", "ct", "mask", "shape", "affine"}    ->  {program: "equal", or what differs, or why not}
    {"write": folder, "ct", "mask", "shape", "affine"}                                ->  {program: the file, or why there is none}
    {"bias": our RTSTRUCT, "ct", "mask", "shape", "affine"}                           ->  {"ours" | "rt-utils": numbers of `bias`}

`ct` is the folder of a DICOM series, or null; `mask` a file of bytes, the first of the three axes of `shape` running fastest; `affine`
takes their indices to left, posterior, superior in mm. Segments are called Liver.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import highdicom as hd
import nrrd
import numpy as np
import pydicom
import SimpleITK as sitk
import slicerio
from pydicom.sr.codedict import codes
from rt_utils import RTStructBuilder

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
sitk.ProcessObject.SetGlobalWarningDisplay(False)
BIN = Path(sys.executable).parent
NAME = "Liver"


def program(name, *arguments):
    done = subprocess.run([BIN / name, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines()
        raise RuntimeError(lines[-1] if lines else f"status {done.returncode}")


def affine_of(image):
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return affine


def voxels_of(image):
    """Indexed [i, j, k]."""
    return sitk.GetArrayFromImage(image).transpose()


def verdict(array, affine, job):
    """Where the ones of an array lie among the voxels of the CT."""
    wanted = mask_of(job)
    index = np.argwhere(array)
    if len(index):
        to_ct = np.linalg.inv(np.array(job["affine"])) @ affine
        places = index @ to_ct[:3, :3].T + to_ct[:3, 3]
        whole = np.rint(places).astype(int)
        off = np.abs(places - whole).max()
        if off > 0.01:
            return f"{off:.3f} voxels off"
        if (whole < 0).any() or (whole >= wanted.shape).any():
            return f"reaches from voxel {whole.min(0).tolist()} to {whole.max(0).tolist()}"
    found = np.zeros_like(wanted)
    if len(index):
        found[tuple(whole.T)] = True
    wrong = int((found != wanted).sum())
    return "equal" if wrong == 0 else f"{wrong} of {int(wanted.sum())} voxels differ"


def mask_of(job):
    return np.fromfile(job["mask"], np.uint8).reshape(job["shape"], order="F") != 0


def seg_by_pydicom(path, job):
    """Frame by frame, each where its own position is."""
    ds = pydicom.dcmread(path)
    number = next(int(s.SegmentNumber) for s in ds.SegmentSequence if s.SegmentLabel == NAME)
    shared = ds.SharedFunctionalGroupsSequence[0]
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    frames = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    assert len(frames) == len(ds.PerFrameFunctionalGroupsSequence)
    inverse = np.linalg.inv(np.array(job["affine"]))
    found = np.zeros(job["shape"], bool)
    for frame, groups in zip(frames, ds.PerFrameFunctionalGroupsSequence):
        if "SegmentIdentificationSequence" in groups:
            if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
                continue
            frame = frame * number
        j, i = np.nonzero(frame == number)
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        mm = position + np.outer(i * between_columns, row) + np.outer(j * between_rows, column)
        found[tuple(np.rint(mm @ inverse[:3, :3].T + inverse[:3, 3]).astype(int).T)] = True
    return verdict(found, np.array(job["affine"]), job)


def seg_by_highdicom(path, job):
    seg = hd.seg.segread(path)
    numbers = seg.get_segment_numbers(segment_label=NAME)
    volume = seg.get_volume(segment_numbers=numbers, combine_segments=True)
    # Indexed [slice, row, column].
    return verdict(volume.array, volume.affine, job)


def seg_by_dcmqi(path, job):
    with tempfile.TemporaryDirectory() as folder:
        program("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", folder, "--prefix", "a", "-t", "nrrd")
        meta = json.loads((Path(folder) / "a-meta.json").read_text())
        labels = [segment for group in meta["segmentAttributes"] for segment in group]
        for number, segment in enumerate(labels):
            if segment["SegmentLabel"] == NAME:
                file = Path(folder) / f"a-{number + 1}.nrrd"
                if not file.exists():
                    # It says why, and exits with 0.
                    raise RuntimeError("no image was written")
                image = sitk.ReadImage(file)
                return verdict(voxels_of(image) != 0, affine_of(image), job)
    return "no such segment"


def seg_by_simpleitk(path, job):
    image = sitk.ReadImage(path)
    array = sitk.GetArrayFromImage(image)
    # Voxels in the last byte that is not full are whatever was in memory: findings/simpleitk-seg-last-bits.sh.
    rest = array.size % 8
    if rest and pydicom.dcmread(path, stop_before_pixels=True).BitsAllocated == 1:
        array.flat[-rest:] = mask_of(job).transpose().flat[-rest:]
    return verdict(array.transpose() != 0, affine_of(image), job)


def nrrd_by_simpleitk(path, job):
    image = sitk.ReadImage(path)
    return verdict(voxels_of(image) == int(image.GetMetaData("Segment0_LabelValue")), affine_of(image), job)


def nrrd_by_pynrrd(path, job):
    array, header = nrrd.read(path)
    assert header["Segment0_Name"] == NAME and header["space"] == "left-posterior-superior"
    affine = np.eye(4)
    affine[:3, :3] = header["space directions"].T
    affine[:3, 3] = header["space origin"]
    return verdict(array == int(header["Segment0_LabelValue"]), affine, job)


def nrrd_by_slicerio(path, job):
    segmentation = slicerio.read_segmentation(path)
    return verdict(slicerio.segment_mask(segmentation, NAME), segmentation["ijkToLPS"], job)


def rtstruct_by_rt_utils(path, job):
    struct = RTStructBuilder.create_from(dicom_series_path=job["ct"], rt_struct_path=path)
    # Indexed [row, column, slice].
    mask = struct.get_roi_mask_by_name(NAME).transpose(1, 0, 2)
    return verdict(mask, np.array(job["affine"]), job)


READERS = {
    "seg": {
        "pydicom": seg_by_pydicom,
        "highdicom": seg_by_highdicom,
        "dcmqi": seg_by_dcmqi,
        "SimpleITK": seg_by_simpleitk,
    },
    "nrrd": {"SimpleITK": nrrd_by_simpleitk, "pynrrd": nrrd_by_pynrrd, "slicerio": nrrd_by_slicerio},
    "rtstruct": {"rt-utils": rtstruct_by_rt_utils},
}


def slices_of(job):
    """In the order of the CT's third axis."""
    slices = [pydicom.dcmread(file, stop_before_pixels=True) for file in Path(job["ct"]).iterdir()]
    inverse = np.linalg.inv(np.array(job["affine"]))
    return sorted(slices, key=lambda ds: inverse[2] @ [*map(float, ds.ImagePositionPatient), 1])


def highdicom_writes(kind):
    def write(path, job):
        slices = slices_of(job)
        for ds in slices:
            for name in ("PatientSex", "StudyTime", "AccessionNumber", "StudyID"):
                if name not in ds:
                    setattr(ds, name, "")
            # It takes no CT without them.
            ds.SOPClassUID, ds.SOPInstanceUID = ds.file_meta[0x00020002].value, ds.file_meta[0x00020003].value
            for name in ("StudyInstanceUID", "SeriesInstanceUID"):
                setattr(ds, name, ds.get(name) or pydicom.uid.generate_uid(entropy_srcs=[name]))
            if not ds.get("SpecificCharacterSet"):
                ds.SpecificCharacterSet = "ISO_IR 100"
        description = hd.seg.SegmentDescription(
            segment_number=1,
            segment_label=NAME,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type="MANUAL",
        )
        hd.seg.Segmentation(
            source_images=slices,
            pixel_array=mask_of(job).transpose().astype(np.uint8),
            segmentation_type=kind,
            segment_descriptions=[description],
            series_instance_uid=hd.UID(),
            series_number=5,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="none",
            manufacturer_model_name="none",
            software_versions="1",
            device_serial_number="1",
        ).save_as(path)

    return write


def dcmqi_writes(path, job):
    affine = np.array(job["affine"])
    image = sitk.GetImageFromArray(mask_of(job).transpose().astype(np.uint8))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    code = {"CodeValue": "10200004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Liver"}
    category = {"CodeValue": "123037004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure"}
    segment = {
        "labelID": 1,
        "SegmentLabel": NAME,
        "SegmentDescription": NAME,
        "SegmentAlgorithmType": "MANUAL",
        "SegmentedPropertyCategoryCodeSequence": category,
        "SegmentedPropertyTypeCodeSequence": code,
    }
    meta = {"SeriesDescription": "x", "SeriesNumber": "300", "InstanceNumber": "1", "segmentAttributes": [[segment]]}
    with tempfile.TemporaryDirectory() as folder:
        volume, text = Path(folder) / "a.nrrd", Path(folder) / "a.json"
        sitk.WriteImage(image, volume)
        text.write_text(json.dumps(meta))
        program(
            "itkimage2segimage",
            *("--inputImageList", volume, "--inputDICOMDirectory", job["ct"]),
            *("--outputDICOM", path, "--inputMetadata", text, "--skip"),
        )


def rt_utils_writes(path, job):
    struct = RTStructBuilder.create_new(dicom_series_path=job["ct"])
    struct.add_roi(mask=mask_of(job).transpose(1, 0, 2), name=NAME)
    struct.save(path)


def slicerio_writes(path, job):
    segmentation = slicerio.create_segmentation(job["shape"], job["affine"])
    slicerio.add_segment(segmentation, mask_of(job), {"name": NAME})
    slicerio.write_segmentation(path, segmentation)


def pynrrd_writes(path, job):
    affine = np.array(job["affine"])
    header = {
        "space": "left-posterior-superior",
        "space directions": affine[:3, :3].T,
        "space origin": affine[:3, 3],
        "kinds": ["domain"] * 3,
        "Segment0_ID": "Segment_1",
        "Segment0_Name": NAME,
        "Segment0_LabelValue": "7",
        "Segment0_Layer": "0",
    }
    nrrd.write(path, mask_of(job).astype(np.uint8) * 7, header)


WRITERS = {
    "highdicom BINARY": ("dcm", highdicom_writes("BINARY")),
    "highdicom LABELMAP": ("dcm", highdicom_writes("LABELMAP")),
    "dcmqi": ("dcm", dcmqi_writes),
    "rt-utils": ("dcm", rt_utils_writes),
    "slicerio": ("seg.nrrd", slicerio_writes),
    "pynrrd": ("seg.nrrd", pynrrd_writes),
}


def bias(path, job):
    """How contours differ from the mask that they were made of: mean distance of the contours from the pixels' edges, in pixels, below 0
    where they lie inside (area less pixels, by length); and Dice of the pixels whose centres are inside, where a centre on a contour
    counts if the inside is at its right (the rule of most rasterisers), and where it doesn't count."""
    wanted = mask_of(job)
    columns, rows, slices = wanted.shape
    inverse = np.linalg.inv(np.array(job["affine"]))
    found = {"half-open": np.zeros_like(wanted), "without the contour": np.zeros_like(wanted)}
    on = np.zeros_like(wanted)
    crossings = {}
    area = length = 0.0
    for contour in pydicom.dcmread(path).ROIContourSequence[0].ContourSequence:
        points = np.array(contour.ContourData, float).reshape(-1, 3) @ inverse[:3, :3].T + inverse[:3, 3]
        # Noise of decimals.
        points = np.rint(points * 1024) / 1024
        slice_, a = int(round(points[0, 2])), points[:, :2]
        b = np.roll(a, -1, axis=0)
        area += abs((a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]).sum()) / 2
        length += np.hypot(*(b - a).T).sum()
        for (x1, y1), (x2, y2) in zip(a, b):
            for y in range(int(np.ceil(min(y1, y2))), int(np.floor(max(y1, y2))) + 1):
                if (y1 <= y) != (y2 <= y):
                    x = x1 + (y - y1) * (x2 - x1) / (y2 - y1)
                    crossings.setdefault((slice_, y), []).append(x)
                    if abs(x - round(x)) < 1e-6:
                        on[round(x), y, slice_] = True
                elif y1 == y2 == y:
                    on[int(np.ceil(min(x1, x2))) : int(np.floor(max(x1, x2))) + 1, y, slice_] = True
    for (slice_, y), row in crossings.items():
        left = (np.array(row)[:, None] <= np.arange(columns) + 1e-6).sum(0)
        found["half-open"][left % 2 == 1, y, slice_] = True
    found["without the contour"] = found["half-open"] & ~on
    dice = {rule: float(2 * (mask & wanted).sum() / (mask.sum() + wanted.sum())) for rule, mask in found.items()}
    return {"pixels": (area - wanted.sum()) / length, **dice}


def biases(job):
    with tempfile.TemporaryDirectory() as folder:
        theirs = os.path.join(folder, "a.dcm")
        rt_utils_writes(theirs, job)
        return {"ours": bias(job["bias"], job), "rt-utils": bias(theirs, job)}


def attempt(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:  # noqa: BLE001 (whatever a program says is its answer)
        return f"refused: {type(error).__name__}: {error}"


def run(job):
    if "read" in job:
        return {name: attempt(read, job["path"], job) for name, read in READERS[job["read"]].items()}
    if "bias" in job:
        return biases(job)
    answers = {}
    for number, (name, (ending, write)) in enumerate(WRITERS.items()):
        if ending == "dcm" and job["ct"] is None:
            continue
        path = os.path.join(job["write"], f"{number}.{ending}")
        answers[name] = attempt(write, path, job) or path
    return answers


answers = os.fdopen(os.dup(1), "w")
# Programs write what they like to standard output.
os.dup2(2, 1)
for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), file=answers, flush=True)
