"""Where SimpleITK and nibabel put volumes: one JSON object per line of standard input (a path, or the folder of a DICOM series).

Affines are voxel index to right, anterior, superior in mm; null where the program refuses the file.
"""

import json
import sys

import nibabel
import numpy as np
import SimpleITK as sitk

sitk.ProcessObject.SetGlobalWarningDisplay(False)
nibabel.imageglobals.logger.setLevel("CRITICAL")


def of_simpleitk(path):
    try:
        if path.endswith("/"):
            reader = sitk.ImageSeriesReader()
            reader.SetFileNames(reader.GetGDCMSeriesFileNames(path))
        else:
            reader = sitk.ImageFileReader()
            reader.SetFileName(path)
        image = reader.Execute()
    except RuntimeError:
        return None
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    voxels = sitk.GetArrayFromImage(image).transpose()
    return {"affine": (np.diag([-1, -1, 1, 1]) @ affine).tolist(), "voxels": voxels.ravel("F").astype(float).tolist()}


def of_nibabel(path):
    if not path.endswith((".nii", ".nii.gz", ".hdr", ".img")):
        return None
    try:
        image = nibabel.load(path)
    except (ValueError, nibabel.spatialimages.HeaderDataError):
        return None
    return {"affine": image.affine.tolist(), "voxels": image.get_fdata().ravel("F").tolist()}


for line in sys.stdin:
    path = line.rstrip("\n")
    print(json.dumps({"simpleitk": of_simpleitk(path), "nibabel": of_nibabel(path)}))
