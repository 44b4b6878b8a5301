"""Times HD95 of MONAI and of DeepMind's surface-distance, slice by slice in one thread, for bench_metrics.rs.

    python peer_metrics.py PREDICTIONS.npy TRUTHS.npy REPEATS

Prints one line of JSON for each peer: its name, the seconds of its fastest pass over all slices, and its mean HD95.
surface-distance weighs contour corners by length where MONAI counts edge pixels, so its mean differs a little.
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


def monai():
    import torch
    from monai.metrics import compute_hausdorff_distance

    torch.set_num_threads(1)
    # Converted outside the clock, to the type that the function works in.
    pairs = [[torch.from_numpy(m)[None, None].float() for m in pair] for pair in zip(predictions, truths)]
    return lambda: [float(compute_hausdorff_distance(*pair, include_background=True, percentile=95)) for pair in pairs]


def surface_distance():
    from surface_distance import compute_robust_hausdorff, compute_surface_distances

    def measure():
        return [
            compute_robust_hausdorff(compute_surface_distances(truth, prediction, (1, 1)), 95)
            for prediction, truth in zip(predictions, truths)
        ]

    return measure


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
    print(json.dumps({"name": name, "seconds": min(seconds), "mean_hd95": float(np.mean(values))}))
