"""thingsvision over a folder of JPEG files; needs a Python of its own, see benchmarks/README.md.

Usage: python -m benchmarks.thingsvision_peer FILES OUT SIZE_PX. Prints images per second.
"""

import sys
import time

import numpy as np

# Before thingsvision: it loads TensorFlow, after which triton's LLVM crashes the process.
from pipeline.checkpoint import load_weights
from pipeline.params.model import ModelParams
from pipeline.vit import TracedViT

vars(np)["AxisError"] = np.exceptions.AxisError  # NumPy 2 moved what thingsvision 2.7 reads at import.

import torch  # noqa: E402
from thingsvision import get_extractor_from_model  # noqa: E402
from thingsvision.utils.data import ImageDataset  # noqa: E402
from torchvision import transforms  # noqa: E402

NATIVE_PX, BATCH, WORKERS, FILE_BATCHES = 64, 64, 2, 16


def main(files: str, out: str, size_px: int) -> None:
    weights = load_weights(ModelParams(name="static_vit", weights="random", seed=0), NATIVE_PX)
    model = TracedViT(weights, size_px).vit
    blocks = (f"blocks.{index}" for index in range(weights.architecture.depth))
    prepare = transforms.Compose(
        [
            transforms.Resize((size_px, size_px)),
            transforms.ToTensor(),
            transforms.Normalize(*weights.normalisation),
        ]
    )

    def take_cls(_extractor: object, values: torch.Tensor) -> torch.Tensor:
        return values[:, 0].clone() if values.ndim == 3 else values

    extractor = get_extractor_from_model(model, "cpu", "pt", prepare, flatten_fn=take_cls)
    started_s = time.perf_counter()
    data = ImageDataset(files, out, "pt", transforms=extractor.get_transformations())
    batches = torch.utils.data.DataLoader(data, BATCH, num_workers=WORKERS)
    extractor.extract_features(
        batches,
        module_names=["norm_pre", *blocks, "norm", "head"],
        flatten_acts=True,
        output_dir=out,
        step_size=FILE_BATCHES,
    )
    print(len(data) / (time.perf_counter() - started_s))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
