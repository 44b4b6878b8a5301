"""Times MONAI and DeepMind's surface-distance in one thread, for bench_metrics.rs.

    python peer_metrics.py PREDICTIONS.npy TRUTHS.npy REPEATS [SPACING SPACING SPACING]

Without a spacing: HD95 slice by slice. With one, of the volume as a whole: HD95 and ASSD of MONAI, HD95 and NSD at 2 mm of
surface-distance. Prints one line of JSON for each peer: its name, the seconds of its fastest pass, and its HD95, the mean of all slices.
surface-distance weighs corners by length or area where MONAI counts edge pixels or voxels, so its HD95 differs a little.
"""

import importlib.metadata
import json
import sys
import time
import warnings

import numpy as np

warnings.filterwarnings("ignore")
predictions, truths = (np.load(path).astype(bool) for path in sys.argv[1:3])
repeats = int(sys.argv[3])
spacing = tuple(map(float, sys.argv[4:])) or (1.0, 1.0)
whole = len(spacing) == 3
pairs = [(predictions, truths)] if whole else list(zip(predictions, truths))


def monai():
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    torch.set_num_threads(1)
    # Converted outside the clock, to the type that the functions work in.
    tensors = [[torch.from_numpy(m)[None, None].float() for m in pair] for pair in pairs]

    def measure(pair):
        if whole:
            compute_average_surface_distance(*pair, include_background=True, symmetric=True, spacing=spacing)
        return float(compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing))

    return lambda: [measure(pair) for pair in tensors]


def surface_distance():
    from surface_distance import (
        compute_robust_hausdorff,
        compute_surface_dice_at_tolerance,
        compute_surface_distances,
    )

    def measure(prediction, truth):
        distances = compute_surface_distances(truth, prediction, spacing)
        if whole:
            compute_surface_dice_at_tolerance(distances, 2.0)
        return compute_robust_hausdorff(distances, 95)

    return lambda: [measure(*pair) for pair in pairs]


for package, prepare in [("monai", monai), ("surface-distance", surface_distance)]:
    try:
        measure = prepare()
    except ImportError as missing:
        print(f"{package} left out: {missing}", file=sys.stderr)
        continue
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        values = measure()
        seconds.append(time.perf_counter() - start)
    name = f"{package} {importlib.metadata.version(package)}"
    print(json.dumps({"name": name, "seconds": min(seconds), "hd95": float(np.mean(values))}))
