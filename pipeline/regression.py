"""What the calibration split teaches: the direction, the learned proxy, and the map from score to oracle."""

from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegressionCV, RidgeCV

from pipeline.calibration import Calibration, Floats, Kind
from pipeline.learned import GROUPS, Learned

_FOLDS = 5
_STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
_MOST_ITERATIONS = 1000


def rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation; NaN where either side is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(spearmanr(first, second).statistic)


def learn_direction(proxy: Floats, oracle: Floats) -> int:
    """+1 where a larger proxy goes with a larger oracle, -1 where with a smaller; +1 where neither."""
    return -1 if rank_correlation(proxy, oracle) < 0 else 1


def learn_proxy(features: Floats, oracle: Floats) -> Learned:
    """The linear model of features (N, F) that predicts the oracle (N,) best, on standardised features.

    Logistic where the oracle is yes or no, least squares else, both with a ridge. Its strength, and which of
    `GROUPS` of the features it sees, are chosen by cross-validation; the other features get no weight. A
    constant oracle teaches nothing: all weights are zero.
    """
    binary = set(np.unique(oracle)) <= {0.0, 1.0}
    if np.ptp(oracle) == 0 or (binary and min(oracle.sum(), (1 - oracle).sum()) < _FOLDS):
        return Learned((0.0,) * features.shape[1], 0.0)
    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread == 0] = 1.0
    standardised = (features - mean) / spread
    regress = _regress_event if binary else _regress_value
    chosen, model = max(
        ((columns, regress(standardised[:, columns], oracle)) for columns in GROUPS),
        key=lambda pair: pair[1].score,
    )
    weights = np.zeros(features.shape[1])
    weights[chosen] = model.slopes / spread[chosen]
    return Learned(_floats(weights), float(model.offset - mean @ weights))


class _Linear(NamedTuple):
    """slopes (F,), offset, and the score in cross-validation; larger is better."""

    slopes: Floats
    offset: float
    score: float


def _regress_event(features: Floats, event: Floats) -> _Linear:
    model = LogisticRegressionCV(
        Cs=_STRENGTHS,
        cv=_FOLDS,
        scoring="roc_auc",  # Only the order of the scores counts.
        max_iter=_MOST_ITERATIONS,
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
    ).fit(features, event)
    return _Linear(model.coef_[0], model.intercept_[0], model.scores_.mean(axis=0).max())


def _regress_value(features: Floats, value: Floats) -> _Linear:
    ridge = RidgeCV(alphas=[1 / strength for strength in _STRENGTHS]).fit(features, value)
    return _Linear(ridge.coef_, ridge.intercept_, ridge.best_score_)


def calibrate(kind: Kind, scores: Floats, oracle: Floats) -> Calibration:
    """Least-squares fit of a non-decreasing map from scores (N,) to the oracle (N,)."""
    return _isotonic(scores, oracle) if kind == "isotonic" else _linear(scores, oracle)


def _isotonic(scores: Floats, oracle: Floats) -> Calibration:
    fitted = IsotonicRegression(out_of_bounds="clip").fit(scores, oracle)
    return Calibration("isotonic", _floats(fitted.X_thresholds_), _floats(fitted.y_thresholds_))


def _linear(scores: Floats, oracle: Floats) -> Calibration:
    spread = np.ptp(scores)
    if spread == 0:
        return Calibration("linear", (float(scores[0]), float(scores[0]) + 1), (float(oracle.mean()),) * 2)
    slope = max(0.0, float(np.cov(scores, oracle, bias=True)[0, 1] / np.var(scores)))
    ends = np.array([scores.min(), scores.max()])
    return Calibration("linear", _floats(ends), _floats(oracle.mean() + slope * (ends - scores.mean())))


def _floats(values: Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
