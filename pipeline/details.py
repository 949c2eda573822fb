"""The report's side tables: the data, the deltas, the cost of a pass, and the extraction."""

from collections.abc import Iterator

from pipeline.measured import Document, Metrics
from pipeline.oracles import ORACLES
from pipeline.wording import DASH, Grid, milliseconds, number, percent, rate, times, words

_NO_GAIN = {"value": float("-inf")}


def _delta_grid(summary: Document) -> Grid:
    accuracy, delta = summary.get("accuracy", {}), summary["delta"]
    rows = [(f"delta {key}", number(delta[key], 3)) for key in delta]
    rows += [("agreement of low with high", percent(summary.get("agreement")))]
    rows += [(f"accuracy {role}", percent(accuracy.get(role))) for role in ("low", "high")]
    rows += [(f"{key} rate", percent(summary.get(f"{key}_rate"))) for key in ("benefit", "breakage")]
    return Grid(("measure", "value"), tuple(rows))


def _profile_grid(profile: Document) -> Grid:
    header = ("role", "size px", "tokens", "p50 ms", "p90 ms", "GFLOPs", "parameters", "peak MB")
    rows = [
        (
            role,
            number(cost.get("size_px"), 0),
            number(cost.get("tokens"), 0),
            milliseconds(cost["latency_ms"].get("p50")) + ("" if cost.get("stable", 1) else " UNSTABLE"),
            milliseconds(cost["latency_ms"].get("p90")),
            number(cost.get("gflops")),
            number(cost.get("parameters"), 0),
            number(cost.get("peak_memory_mb"), 0),
        )
        for role in ("low", "mid", "high")
        if (cost := profile.get(role))
    ]
    ratios = times(profile.get("latency_ratio")), times(profile.get("flops_ratio"))
    rows.append(("high / low", DASH, DASH, ratios[0], DASH, ratios[1], DASH, DASH))
    return Grid(header, tuple(rows))


def _extract_grid(metrics: Metrics) -> Grid:
    steps = ("reader", "forward", "writer", "total")
    header = (
        "role",
        "images",
        *(f"{step} images/s" for step in steps),
        "wall s",
        "peak MB",
        "batch",
        "resumed",
    )
    rows = [
        (
            role,
            number(run.get("images"), 0),
            *(rate(run.get(step, {}).get("images_per_s")) for step in steps),
            number(run.get("total", {}).get("wall_s"), 1),
            *(number(run.get(key), 0) for key in ("peak_memory_mb", "batch_size", "resumed_images")),
        )
        for role, run in metrics.extract.items()
    ]
    return Grid(header, tuple(rows))


def _proxies_grid(by_proxy: Document, cost_us: Document) -> Grid:
    """Best gain first; what is shown of agreement and accuracy is that at one escalation in ten."""
    header = (
        "proxy",
        "gain over random",
        "interval",
        "less the chosen one's",
        "AUROC",
        "agreement",
        "accuracy",
        "µs",
    )
    order = sorted(by_proxy, key=lambda name: -(by_proxy[name].get("gain_over_random") or _NO_GAIN)["value"])
    return Grid(
        header, tuple((name, *_proxy_cells(by_proxy[name]), number(cost_us.get(name), 0)) for name in order)
    )


def _proxy_cells(item: Document) -> tuple[str, ...]:
    gain, difference = item.get("gain_over_random", {}), item.get("difference", {})
    interval = (number(gain.get(end)) for end in ("ci_low", "ci_high"))
    apart = (number(difference.get(end)) for end in ("ci_low", "ci_high"))
    return (
        number(gain.get("value")),
        " to ".join(interval),
        " to ".join(apart),
        number(item.get("auroc")),
        percent(item.get("agreement", {}).get("at_10")),
        percent(item.get("accuracy", {}).get("at_10")),
    )


def is_told(by_proxy: Document) -> bool:
    """Whether there were images and events enough for a claim; so for a run that did not note it."""
    return all(item.get("told", 1) for item in by_proxy.values())


def _on(*measured: Document) -> str:
    """Which machines times are of; empty where that was not noted."""
    machines = sorted({name for each in measured if (name := each.get("gpu") or each.get("processor"))})
    return f" on {' and '.join(machines)}" if machines else ""


def list_details(metrics: Metrics) -> Iterator[tuple[str, Grid]]:
    """(title, table) of what was counted and measured besides the replay; absent files are left out."""
    if metrics.delta:
        yield "Low against high", _delta_grid(metrics.delta)
    compared, costs = metrics.proxies or {}, metrics.proxy_costs or {}
    for oracle in (name for name in ORACLES if name in compared):
        grid = _proxies_grid(compared[oracle], costs.get("cost_us", {}))
        timed = f" (µs{_on(costs)})" if _on(costs) else ""
        few = "" if is_told(compared[oracle]) else "; images or events too few to tell"
        yield f"Which signal predicts {oracle}, at 10 % escalated{timed}{few}", grid
    if "overlap" in compared:
        rows = tuple((words(name), percent(share)) for name, share in compared["overlap"].items())
        yield "Where the oracles meet (far: the tenth of largest delta)", Grid(("event", "images"), rows)
    if metrics.prepare:
        counts = {**metrics.prepare.get("images", {}), "classes": metrics.prepare.get("classes")}
        yield "Images", Grid(("count", "number"), tuple((key, number(counts[key], 0)) for key in counts))
    if metrics.profile:
        yield "Cost of a forward pass", _profile_grid(metrics.profile)
    if metrics.extract:
        yield f"Extraction{_on(*metrics.extract.values())}", _extract_grid(metrics)
