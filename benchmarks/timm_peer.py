"""The usual way to extract: timm, a DataLoader over JPEG files (PIL), forward hooks, `.npy` files.

Usage: python -m benchmarks.timm_peer FILES OUT SIZE_PX. Prints images per second.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.usual import HookedViT
from pipeline.checkpoint import load_weights
from pipeline.params.model import ModelParams
from pipeline.zoo import IMAGENET

NATIVE_PX, BATCH, WORKERS = 64, 64, 2


class Files(Dataset[torch.Tensor]):
    """The files of a folder, resized and normalised."""

    def __init__(self, folder: Path, size_px: int) -> None:
        self.paths = sorted(folder.iterdir())
        self.transform = transforms.Compose(
            [
                transforms.Resize((size_px, size_px)),
                transforms.ToTensor(),
                transforms.Normalize(*IMAGENET),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as picture:
            pixels: torch.Tensor = self.transform(picture.convert("RGB"))
        return pixels


def main(files: Path, out: Path, size_px: int) -> None:
    weights = load_weights(ModelParams(name="static_vit", weights="random", seed=0), NATIVE_PX)
    vit = HookedViT(weights, NATIVE_PX, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    out.mkdir(parents=True)
    started_s = time.perf_counter()
    data = Files(files, size_px)
    for number, images in enumerate(DataLoader(data, batch_size=BATCH, num_workers=WORKERS)):
        logits = vit(images)
        np.save(out / f"logits_{number:05d}.npy", logits.cpu().numpy())
        for layer, state in enumerate(vit.trace):
            np.save(out / f"layer{layer:02d}_{number:05d}.npy", state.cpu().numpy())
    print(len(data) / (time.perf_counter() - started_s))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
