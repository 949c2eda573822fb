"""What the tests of measuring and of replaying share."""

import numpy as np

from pipeline.cascade import Bench
from pipeline.params.replay import ReplayParams
from pipeline.policy import decide, score
from pipeline.proxies import cls_change
from pipeline.replay import Expected
from tests.made import engine, policy, runtime, weights

PARAMS = ReplayParams(
    scenarios=["single_stream", "offline"],
    images=None,
    compare_images=5,
    deadline_ms=None,
    single_stream_block=2,
    offline_block=4,
    warmup_windows=3,
    stable_within=0.05,
    confidence=0.9,
    bootstrap=200,
    seed=0,
)


def bench(sample):
    """A bench whose policy escalates three of the seven images, and what fit would say of them."""
    proxy = cls_change(engine(32).run(sample.canvases).trace, None).numpy().astype(float)
    made = policy(float(np.sort(proxy)[3:5].mean()))
    fitted = dict(zip(sample.image_ids, decide(made, proxy).tolist(), strict=True))
    oracle = {image_id: float(rank) for rank, image_id in enumerate(sample.image_ids)}
    sizes_px = {"low": 32, "mid": 48, "high": 64}
    scores = dict(zip(sample.image_ids, score(proxy, made.direction).tolist(), strict=True))
    return Bench(weights(), sizes_px, runtime(), made, batch_size=3), Expected(fitted, scores, oracle)
