"""`adaptive-vit study`: which signal wins, what a certificate costs, and when adaptivity beats static mid."""

from pathlib import Path
from typing import Any, Literal

import click
import polars as pl

from pipeline.calibration import learn_direction
from pipeline.errors import PipelineError
from pipeline.files import read_json
from pipeline.findings import policies_of
from pipeline.fit import Fitted, fit, read_samples
from pipeline.frontier import Prices
from pipeline.headroom import measure_headroom
from pipeline.judge import has_labels
from pipeline.learned import layer_features
from pipeline.oracles import ORACLES
from pipeline.params.fit import FitParams, OracleName
from pipeline.policy import Policy, proxy_of, score
from pipeline.proxies import PROXIES
from pipeline.proxy_bench import compare_proxies
from pipeline.results import replace_in_file
from pipeline.samples import join_proxies
from pipeline.signals import best_single, describe_headroom, describe_signals
from pipeline.study import (
    ALPHAS,
    FOLLOWED,
    PROMISED_DROPS,
    Signal,
    certified_params,
    describe_certificates,
    describe_limits,
    describe_mid,
    describe_promised_drops,
    mark_mid,
    study_oracle,
)
from pipeline.tables import read_fingerprint, read_table
from stages.common import ParamsFile, path_option, stage_command


@stage_command("fit")
@path_option("low", "data/embeddings/low", "Folder of the low embeddings.")
@path_option("deltas", "data/deltas.parquet", "Table of deltas.")
@path_option("images", "data/images.parquet", "Table of images.")
@path_option("answers", "data/replay.parquet", "Answers of the replay.")
@path_option("replay", "metrics/replay.json", "Measured costs.")
@click.option(
    "--page",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Document in which to replace the part between the markers; else it is printed.",
)
def main(params: ParamsFile, low: Path, deltas: Path, replay: Path, page: Path | None, **paths: Path) -> None:
    """Write the tables of docs/results.md from the data at hand: two minutes for 10,000 images."""
    settings = params.section("fit", FitParams)
    measured = _single_stream(replay)
    samples = join_proxies(low, deltas, {**PROXIES, "features": layer_features})
    oracle = study_oracle(samples)
    parts = ["### Which signal tells that high resolution matters", *_signals(samples, oracle, settings)]
    tables = {
        name: read_samples(low, deltas, settings.model_copy(update={"proxy": name, "oracle": oracle}))
        for name in FOLLOWED
    }
    fingerprint = read_fingerprint(deltas)
    prices = Prices(
        {name: item["latency_ms"]["mean"] for name, item in policies_of(measured).items()},
        measured["adaptive"]["escalation_rate"],
    )

    def certify(rule: Literal["risk", "accuracy_drop"], values: tuple[float, ...]) -> dict[Any, Fitted]:
        return {
            (name, value): fit(
                tables[name], certified_params(settings, name, oracle, rule, value), fingerprint
            )
            for name in FOLLOWED
            for value in values
        }

    risks = certify("risk", ALPHAS)
    parts += ["", "### What a certificate costs", *describe_certificates(risks, prices)]
    policies = {
        name: fit(
            tables[name], settings.model_copy(update={"proxy": name, "oracle": oracle}), fingerprint
        ).policy
        for name in FOLLOWED
    }
    signals = [_signal(low, deltas, policy) for policy in policies.values()]
    parts += ["", "### What a limit on the loss costs", *describe_limits(samples, signals, prices, settings)]
    if has_labels(samples):
        promised = describe_promised_drops(certify("accuracy_drop", PROMISED_DROPS), prices)
        parts += ["", "### What promising that limit costs", *promised]
    if "static_mid" in measured:
        marked = mark_mid(samples, _answers(paths["answers"]), _expected(samples, paths["images"], deltas))
        rival = describe_mid(marked, signals, prices, settings)
        parts += ["", "### Against the static policy in between", *rival]
    _deliver("\n".join(parts) + "\n", page)


def _single_stream(replay: Path) -> dict[str, Any]:
    document = read_json(replay)
    if "single_stream" not in document:
        raise PipelineError(f"{replay}: holds no single stream; replay with replay.scenarios single_stream")
    found: dict[str, Any] = document["single_stream"]
    return found


def _answers(table: Path) -> pl.DataFrame:
    """Of static mid: image_id and top1."""
    found = pl.DataFrame(read_table(table, ["image_id", "scenario", "policy", "top1"]))
    return found.filter(scenario="single_stream", policy="static_mid").select("image_id", "top1")


def _expected(samples: pl.DataFrame, images: Path, deltas: Path) -> pl.DataFrame:
    """image_id and top1: the model's index of the true class or, where it knows no classes, high's answer."""
    if not has_labels(samples):
        return pl.DataFrame(read_table(deltas, ["image_id", "top1_high"])).rename({"top1_high": "top1"})
    index = {wnid: place for place, wnid in enumerate(read_fingerprint(deltas)["low"]["classes"])}
    truth = pl.col("wnid").replace_strict(index, return_dtype=pl.Int32)
    return pl.DataFrame(read_table(images, ["image_id", "wnid"])).select("image_id", top1=truth)


def _signals(samples: pl.DataFrame, followed: OracleName, settings: FitParams) -> list[str]:
    values = {name: samples[name].to_numpy() for name in PROXIES}
    features = samples["features"].to_numpy()

    def compare(reference: str) -> dict[str, Any]:
        return compare_proxies(samples, values, features, settings.model_copy(update={"proxy": reference}))

    compared = compare(settings.proxy)
    best = {oracle: best_single(by_proxy) for oracle, by_proxy in compared.items()}
    against = {name: compare(name) for name in set(best.values())}
    learns, event = (samples["split"] == "calibration").to_numpy(), ORACLES[followed](samples)
    single = score(values[best[followed]], learn_direction(values[best[followed]][learns], event[learns]))
    headroom = measure_headroom(features, event > 0, single, learns, settings)
    return [
        *describe_signals(compared, {oracle: against[name][oracle] for oracle, name in best.items()}),
        *describe_headroom(followed, best[followed], headroom),
    ]


def _signal(low: Path, deltas: Path, policy: Policy) -> Signal:
    values = join_proxies(low, deltas, {"proxy": proxy_of(policy)})["proxy"].to_numpy()
    return Signal(policy.proxy, values, policy.direction)


def _deliver(markdown: str, page: Path | None) -> None:
    if page is None:
        click.echo(markdown, nl=False)
        return
    replace_in_file(page, markdown)
    click.echo(f"{page}: results replaced")


if __name__ == "__main__":
    main()
