#!/usr/bin/env bash
# surface-distance 0.1 with NumPy 2: a missed organ ends an evaluation with an AttributeError about NumPy.
#
# Found: compute_surface_distances raises `AttributeError: np.Inf was removed in the NumPy 2.0 release` where exactly one of the masks is
#   empty, and compute_robust_hausdorff does so where both are. Those are the cases that every evaluation of a segmentation meets: an organ that
#   was missed, and a slice or a volume without it. With NumPy 1.26 both give infinity, as the code means it. Masks that both show something are
#   measured as ever, so that a test on good predictions passes.
# Versions: surface-distance 0.1, numpy 2.4.6 and scipy 1.17.1.
# Date: 2026-12-01.
# Guess: infinite distances, and a surface Dice of 0: the package asks for NumPy without an upper bound.
# Seen: while comparing this project's 3-D metrics with it; `seg-metrics` gives the volume's diagonal and 0, and says so.
#
# Runs on two cubes and an empty mask. Prints what each call gives, and fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet surface-distance==0.1 numpy==2.4.6 scipy==1.17.1
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import surface_distance as sd

cube = np.zeros((12, 12, 12), bool)
cube[3:9, 3:9, 3:9] = True
empty = np.zeros_like(cube)
spacing = (1.0, 1.0, 1.0)


def said(of):
    try:
        return str(of())
    except AttributeError as error:
        return f"AttributeError: {str(error).splitlines()[0]}"


def distances(truth, found):
    return sd.compute_surface_distances(truth, found, spacing)


same = said(lambda: sd.compute_surface_dice_at_tolerance(distances(cube, cube), 1.0))
missed = said(lambda: sd.compute_surface_dice_at_tolerance(distances(cube, empty), 1.0))
invented = said(lambda: sd.compute_surface_dice_at_tolerance(distances(empty, cube), 1.0))
neither = said(lambda: sd.compute_robust_hausdorff(distances(empty, empty), 95.0))
print(f"the same cube twice: surface Dice {same}")
print(f"missed: {missed}")
print(f"false positive: {invented}")
print(f"neither, 95 % Hausdorff distance: {neither}")
assert float(same) == 1.0
for text in (missed, invented, neither):
    assert text.startswith("AttributeError") and "np.Inf" in text, "no longer as it was found"
PYTHON
