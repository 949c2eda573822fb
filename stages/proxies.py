"""Compare every proxy with every oracle on the evaluation images."""

import time
from pathlib import Path
from typing import Any

import click

from pipeline.embeddings import iter_embeddings, read_set_fingerprint
from pipeline.files import write_csv, write_json
from pipeline.learned import NAME, Learned, layer_features
from pipeline.params.fit import FitParams
from pipeline.processor import processor_model
from pipeline.proxies import PROXIES
from pipeline.proxy_bench import compare_proxies, list_rows, measure_overlap, time_proxies
from pipeline.samples import join_proxies
from pipeline.tables import vectors
from stages.common import ParamsFile, path_option, stage_command


@stage_command("fit")
@path_option("low", "data/embeddings/low", "Folder of the low embeddings (Parquet).")
@path_option("deltas", "data/deltas.parquet", "Table of deltas (Parquet).")
@path_option("metrics", "metrics/proxies.json", "Comparison to write (JSON).")
@path_option("costs", "metrics/proxy_costs.json", "Microseconds per image and proxy to write (JSON).")
@path_option("table", "metrics/plots/proxies.csv", "The same as a table, to write (CSV).")
def main(params: ParamsFile, low: Path, deltas: Path, metrics: Path, costs: Path, table: Path) -> None:
    """Say how well every proxy predicts every oracle, with intervals and paired differences."""
    settings = params.section("fit", FitParams)
    started_s = time.perf_counter()
    samples = join_proxies(low, deltas, {**PROXIES, "features": layer_features})
    values = {name: samples[name].to_numpy() for name in PROXIES}
    found = compare_proxies(samples, values, samples["features"].to_numpy(), settings)
    write_json(metrics, {**found, "overlap": measure_overlap(samples)})
    write_json(costs, {"cost_us": _time_all(low), "processor": processor_model()})
    rows = list_rows(found)
    columns = dict.fromkeys(name for row in rows for name in row)  # A constant oracle has no gain.
    write_csv(table, {name: [row.get(name) for row in rows] for name in columns})
    for oracle in found:
        click.echo(f"{oracle}: gain (0 random, 1 oracle), best first; difference to {settings.proxy}")
        for line in _ranked(found[oracle]):
            click.echo(f"  {line}")
    click.echo(f"proxies: {len(samples)} images, {time.perf_counter() - started_s:.1f} s")


def _time_all(low: Path) -> dict[str, float]:
    """Of the first image's trace and logits; what weights the learned proxy has does not change its cost."""
    batch = next(iter_embeddings(low, ["trace", "logits"]))[:1]
    states = int(read_set_fingerprint(low, "low")["trace_states"])
    trace, logits = vectors(batch["trace"]).reshape(1, states, -1), vectors(batch["logits"])
    learned = Learned((0.0,) * layer_features(trace, logits).shape[1], 0.0)
    return time_proxies({**PROXIES, NAME: learned}, trace, logits)


def _ranked(by_proxy: dict[str, dict[str, Any]]) -> list[str]:
    known = {name: item for name, item in by_proxy.items() if item["gain_over_random"]}
    order = sorted(known, key=lambda name: -known[name]["gain_over_random"]["value"])
    return [
        f"{name:<18}  {_interval(known[name]['gain_over_random'])}  {_interval(known[name]['difference'])}"
        for name in order
    ]


def _interval(found: dict[str, float]) -> str:
    return f"{found['value']:+.3f} [{found['ci_low']:+.3f}, {found['ci_high']:+.3f}]"


if __name__ == "__main__":
    main()
