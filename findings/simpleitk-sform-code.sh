#!/usr/bin/env bash
# One NIfTI file, two places: SimpleITK and nibabel disagree about which of a header's two affines counts.
#
# Found: where both sform and qform are set, SimpleITK takes the sform only if its code is 1 ("scanner"). With code 2 ("aligned"), 3, 4
#   or 5 it takes the qform without a word; nibabel takes the sform whatever its code. The spacing is that of pixdim for SimpleITK (with
#   a warning where the sform has another) and that of the affine for nibabel.
# Versions: SimpleITK 2.5.7 (ITK 5.4), nibabel 5.4.2.
# Date: 2026-11-30.
# Guess: meant. The format leaves open which counts where both are set; ITK looks for the scanner's coordinates, and trusts the sform for
#   them only where its code says so. But a user of either program learns nothing of it, and 2 is the code that nibabel writes by default.
# Seen: while comparing where programs put the masks that this project writes.
#
# Runs on a volume of zeros that it makes. Prints what each program says, and fails if that is no longer so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet SimpleITK==2.5.7 nibabel==5.4.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import nibabel
import numpy as np
import SimpleITK as sitk

sform, qform = np.diag([-1.0, -1.0, 2.0, 1.0]), np.diag([-1.0, -1.0, 2.0, 1.0])
sform[:3, 3], qform[:3, 3] = [10, 20, 30], [1, 2, 3]


def of_simpleitk():
    image = sitk.ReadImage("a.nii")
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


def name(affine):
    return "sform" if np.allclose(affine, sform) else "qform" if np.allclose(affine, qform) else "neither"


found = {}
for code in range(1, 6):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), None)
    image.set_sform(sform, code)
    image.set_qform(qform, 1)
    nibabel.save(image, "a.nii")
    found[code] = (name(of_simpleitk()), name(nibabel.load("a.nii").affine))
    print(f"sform code {code}, qform code 1: SimpleITK takes the {found[code][0]}, nibabel the {found[code][1]}")

image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), None)
image.set_sform(sform, 1)
image.header["pixdim"][1:4] = [1, 1, 1.5]
nibabel.save(image, "a.nii")
spacing = [np.linalg.norm(affine[:3, 2]) for affine in (of_simpleitk(), nibabel.load("a.nii").affine)]
print(f"slices 2 mm apart in the sform, 1.5 in pixdim: SimpleITK has {spacing[0]:g}, nibabel {spacing[1]:g}")

expected = {1: ("sform", "sform"), **{code: ("qform", "sform") for code in range(2, 6)}}
assert found == expected and np.allclose(spacing, [1.5, 2]), "no longer as it was found"
PYTHON
