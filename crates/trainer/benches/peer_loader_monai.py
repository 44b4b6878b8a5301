"""Peer of the loader: MONAI's CacheDataset and DataLoader over the same `.npy` store, everything cached. Prints slices per second.

    pip install monai==1.6.1 torch numpy
    python peer_loader_monai.py STORE [--augment] [--workers 2] [--batch 16] [--epochs 3]

The window is part of what is cached. Augmentation: the affine transform of image and mask, gamma and noise, as in the other peer.
"""

import argparse
import glob
import time
import warnings

warnings.filterwarnings("ignore")

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, RandAdjustContrastd, RandAffined, RandGaussianNoised, ScaleIntensityRanged, ToTensord


def main():
    p = argparse.ArgumentParser()
    p.add_argument("store")
    p.add_argument("--augment", action="store_true")
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--epochs", type=int, default=3)
    a = p.parse_args()
    torch.set_num_threads(1)
    slices = []
    for path in sorted(glob.glob(f"{a.store}/images/*.npy")):
        images, masks = np.load(path), np.load(path.replace("/images/", "/masks/"))
        slices += [{"image": i[None].astype(np.float32), "mask": m[None].astype(np.float32)} for i, m in zip(images, masks)]
    transforms = [ScaleIntensityRanged("image", -160, 240, 0, 1, clip=True), ToTensord(["image", "mask"])]
    if a.augment:
        side = slices[0]["image"].shape[-1]
        transforms += [
            RandAffined(
                ["image", "mask"],
                prob=1,
                rotate_range=np.pi / 18,
                translate_range=0.05 * side,
                scale_range=0.1,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
                cache_grid=True,
                spatial_size=(side, side),
            ),
            RandAdjustContrastd("image", prob=1, gamma=(0.7, 1.4)),
            RandGaussianNoised("image", prob=1, std=0.02),
        ]
    data = CacheDataset(slices, Compose(transforms), cache_rate=1.0, num_workers=a.workers, progress=False)
    loader = DataLoader(data, batch_size=a.batch, shuffle=True, num_workers=a.workers, persistent_workers=a.workers > 0)
    rates = []
    for _ in range(a.epochs + 1):
        t, n = time.perf_counter(), 0
        for batch in loader:
            n += len(batch["image"])
            batch["mask"]
        rates.append(n / (time.perf_counter() - t))
    print(f"slices/s {sorted(rates[1:])[len(rates[1:]) // 2]:.0f} over {len(data)} slices")


if __name__ == "__main__":
    main()
