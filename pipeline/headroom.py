"""Whether a larger model finds more in the features that `learned` weighs: why it is ahead, or why not."""

from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from pipeline.calibration import Floats
from pipeline.deferral import Interval, area_gain, draw_weights, percentile_interval, resample
from pipeline.params.fit import FitParams

# Small and slow to learn, so that a few thousand images do not overfit them; never tuned.
_TREES = {"max_iter": 100, "learning_rate": 0.05, "max_leaf_nodes": 8, "early_stopping": False}


class Headroom(NamedTuple):
    """Gains over random escalation of the trees, and of the trees less a single proxy, paired."""

    gain: Interval
    difference: Interval


def measure_headroom(
    features: Floats, event: NDArray[np.bool_], single: Floats, learns: NDArray[np.bool_], params: FitParams
) -> Headroom:
    """Boosted trees that learn the event (N,) from features (N, F) where `learns`, judged on the others.

    single: scores (N,) of the proxy that they are held against.
    """
    trees = HistGradientBoostingClassifier(random_state=params.seed, **_TREES)
    with threadpool_limits(1):  # Threads that wait for a busy core take a hundred times as long.
        trees.fit(features[learns], event[learns])
    scores = trees.predict_proba(features[~learns])[:, 1]
    weights = draw_weights(len(scores), params.bootstrap, params.seed)
    judged = event[~learns].astype(np.float64)
    theirs, its = (
        resample(partial(area_gain, values, judged), weights) for values in (scores, single[~learns])
    )
    confidence = params.threshold.confidence
    return Headroom(percentile_interval(theirs, confidence), percentile_interval(theirs - its, confidence))
