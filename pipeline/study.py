"""The study of one data set: which signal wins, what a certificate costs, when adaptivity beats static mid.

Each part is a table with what it says, as Markdown, from the stored tables and the costs of one replay.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl

from pipeline.candidates import prices_of, read_candidates
from pipeline.fit import Fitted, fit, read_samples
from pipeline.headroom import measure_headroom
from pipeline.learned import layer_features
from pipeline.mid import read_mid
from pipeline.oracles import ORACLES, has_labels
from pipeline.params.fit import FitParams, OracleName, ThresholdParams
from pipeline.params.replay import Scenario
from pipeline.policy import score
from pipeline.promises import describe_certificates, describe_limits, describe_mid, describe_promised_drops
from pipeline.proxies import PROXIES
from pipeline.proxy_bench import compare_proxies
from pipeline.regression import learn_direction
from pipeline.samples import join_proxies
from pipeline.signals import best_single, describe_headroom, describe_signals
from pipeline.tables import read_fingerprint

ALPHAS = (0.01, 0.02, 0.05)
PROMISED_DROPS = (0.005, 0.01, 0.02)
# Those that are followed through; the rest stand in the first tables.
FOLLOWED = ("cls_change", "cls_early_to_final", "confidence", "margin", "learned")

Certified = Literal["risk", "accuracy_drop"]


class Stored(NamedTuple):
    """Paths of what the stages wrote; answers: the table of the replay."""

    low: Path
    deltas: Path
    images: Path
    answers: Path


def study(stored: Stored, scenario: Scenario, measured: Mapping[str, Any], params: FitParams) -> list[str]:
    """Lines of Markdown. measured: the scenario's numbers in metrics/replay.json."""
    samples = join_proxies(stored.low, stored.deltas, {**PROXIES, "features": layer_features})
    oracle, prices = study_oracle(samples), prices_of(measured)
    asked = params.model_copy(update={"oracle": oracle})
    scores = read_candidates(stored.low, stored.deltas, asked, FOLLOWED).scores
    parts = ["### Which signal tells that high resolution matters", *compare_signals(samples, oracle, params)]
    found = describe_certificates(_certify(stored, asked, "risk", ALPHAS), prices)
    parts += ["", "### What a certificate costs", *found]
    parts += ["", "### What a limit on the loss costs", *describe_limits(samples, scores, prices, params)]
    if has_labels(samples):
        found = describe_promised_drops(_certify(stored, asked, "accuracy_drop", PROMISED_DROPS), prices)
        parts += ["", "### What promising that limit costs", *found]
    if "static_mid" in measured:
        marked = read_mid(samples, stored.answers, scenario, stored.images, stored.deltas)
        found = describe_mid(marked, scores, prices, params)
        parts += ["", "### Against the static policy in between", *found]
    return parts


def study_oracle(samples: pl.DataFrame) -> OracleName:
    """What the signals that are followed through predict: benefit, or disagreement without labels."""
    return "benefit" if has_labels(samples) else "disagreement"


def compare_signals(samples: pl.DataFrame, followed: OracleName, params: FitParams) -> list[str]:
    """Every proxy, each a column of `samples`, against every oracle that is not the same for all images."""
    values = {name: samples[name].to_numpy() for name in PROXIES}
    features = samples["features"].to_numpy()

    def compare(reference: str) -> dict[str, Any]:
        return compare_proxies(samples, values, features, params.model_copy(update={"proxy": reference}))

    compared = {
        oracle: by_proxy
        for oracle, by_proxy in compare(params.proxy).items()
        if any(item["gain_over_random"] for item in by_proxy.values())
    }
    best = {oracle: best_single(by_proxy) for oracle, by_proxy in compared.items()}
    against = {name: compare(name) for name in set(best.values())}
    tables = describe_signals(compared, {oracle: against[name][oracle] for oracle, name in best.items()})
    if followed not in compared:
        return [*tables, "", f"Nothing tells signals apart on {followed}, which is the same for all images."]
    learns, event = (samples["split"] == "calibration").to_numpy(), ORACLES[followed](samples)
    single = score(values[best[followed]], learn_direction(values[best[followed]][learns], event[learns]))
    headroom = measure_headroom(features, event > 0, single, learns, params)
    return [
        *tables,
        *describe_headroom(followed, best[followed], headroom, compared[followed][best[followed]]["told"]),
    ]


def _certify(
    stored: Stored, params: FitParams, rule: Certified, values: tuple[float, ...]
) -> dict[tuple[str, float], Fitted]:
    """By proxy and value of the rule."""
    fingerprint = read_fingerprint(stored.deltas)
    found: dict[tuple[str, float], Fitted] = {}
    for name in FOLLOWED:
        table = read_samples(stored.low, stored.deltas, params.model_copy(update={"proxy": name}))
        for value in values:
            found[name, value] = fit(table, certified_params(params, name, rule, value), fingerprint)
    return found


def certified_params(params: FitParams, proxy: str, rule: Certified, value: float) -> FitParams:
    """The same section with a certified rule for the proxy."""
    threshold = ThresholdParams(rule=rule, value=value, confidence=params.threshold.confidence)
    return params.model_copy(update={"proxy": proxy, "threshold": threshold})
