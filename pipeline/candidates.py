"""The signals that a cascade could go by: each as fit would make it, with its scores of all images."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from pipeline.errors import PipelineError
from pipeline.files import read_json
from pipeline.findings import policies_of
from pipeline.fit import fit, read_samples
from pipeline.frontier import Prices
from pipeline.params.fit import FitParams, ThresholdParams
from pipeline.params.replay import SCENARIOS
from pipeline.policy import Policy, proxy_of, score
from pipeline.samples import join_proxies
from pipeline.tables import read_fingerprint
from pipeline.timing import Floats

# Of intervals that nobody reads: only direction and coefficients are asked for.
_FEWEST_RESAMPLES = 100


class Candidates(NamedTuple):
    """samples: the table of deltas; by proxy, policies as fitted and scores (N,) in its order."""

    samples: pl.DataFrame
    policies: Mapping[str, Policy]
    scores: Mapping[str, Floats]


def read_candidates(low: Path, deltas: Path, params: FitParams, names: Iterable[str]) -> Candidates:
    policies = {name: _fit(low, deltas, params, name) for name in names}
    samples = join_proxies(low, deltas, {name: proxy_of(policy) for name, policy in policies.items()})
    scores = {name: score(samples[name].to_numpy(), policy.direction) for name, policy in policies.items()}
    return Candidates(samples, policies, scores)


def _fit(low: Path, deltas: Path, params: FitParams, proxy: str) -> Policy:
    """What the fit stage would make of this proxy, but for the threshold.

    Never the policy on disk: a certified one learned from fewer images than one whose threshold is named.
    """
    rule = ThresholdParams(rule="escalation_rate", value=0.0, confidence=params.threshold.confidence)
    changed = params.model_copy(update={"proxy": proxy, "threshold": rule, "bootstrap": _FEWEST_RESAMPLES})
    return fit(read_samples(low, deltas, changed), changed, read_fingerprint(deltas)).policy


def read_scenario(replay: Path, name: str) -> dict[str, Any]:
    """Its numbers in metrics/replay.json; raises PipelineError where it was not replayed."""
    document = read_json(replay)
    if name not in document:
        held = ", ".join(each for each in SCENARIOS if each in document)
        raise PipelineError(
            f"{replay}: scenario {name} was not replayed; it holds {held or 'none'}. Put it into "
            "replay.scenarios and replay again"
        )
    found: dict[str, Any] = document[name]
    return found


def prices_of(scenario: Mapping[str, Any]) -> Prices:
    means = {name: item["latency_ms"]["mean"] for name, item in policies_of(scenario).items()}
    return Prices(means, scenario["adaptive"]["escalation_rate"])
