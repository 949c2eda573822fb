"""The report's charts as Vega-Lite specifications: plain dicts that need no server and no network."""

import math
from collections.abc import Iterable, Mapping, Sequence

import altair as alt
import polars as pl

from pipeline.looks import (
    ORDERS,
    POLICY_COLOURS,
    AnyChart,
    Spec,
    colour_by,
    finish,
    inline,
    lines_by_order,
    policy_colours,
    vertical_rule,
)
from pipeline.policy import is_number

MOST_POINTS = 3000
GROUPS = 20
ORACLE_TITLES = {
    "delta": "delta (distance of the two embeddings)",
    "disagreement": "share whose top-1 changes",
    "benefit": "share that only high gets right",
}


def chart_delta(histogram: pl.DataFrame, delta: Mapping[str, float] | None) -> Spec:
    """`histogram`: columns delta (bin centre) and images; `delta`: p50 and p90 to mark, where known."""
    width = _bin_width(histogram["delta"].to_list())
    bins = histogram.with_columns(left=pl.col("delta") - width / 2, right=pl.col("delta") + width / 2)
    bars = (
        alt.Chart(inline(bins))
        .mark_bar(color=POLICY_COLOURS["static_high"], opacity=0.85, binSpacing=1)
        .encode(
            x=alt.X("left:Q", bin="binned", title=ORACLE_TITLES["delta"]),
            x2="right:Q",
            y=alt.Y("images:Q", title="images"),
            tooltip=[alt.Tooltip("delta:Q", format=".3f"), alt.Tooltip("images:Q")],
        )
    )
    marks = {f"p{rank}": delta[f"p{rank}"] for rank in (50, 90) if delta and f"p{rank}" in delta}
    layers = [bars, *(vertical_rule(value, name) for name, value in marks.items())]
    return finish(alt.layer(*layers), f"Histogram of delta over {bins['images'].sum()} images.")


def chart_proxy(points: pl.DataFrame, oracle: str, proxy: str, threshold: float) -> Spec:
    """`points`: columns proxy, oracle, expected (in oracle units); `threshold` in proxy units."""
    points = points.filter(pl.col("proxy").is_finite() & pl.col("oracle").is_finite()).sort("proxy", "oracle")
    # Images of one value are in no order, and those of a group that ends among them are no others.
    tied = points.with_columns(pl.col("oracle").mean().over("proxy"))
    shown = _group(tied) if _is_binary(points["oracle"]) else _thin(points)
    x = alt.X("proxy:Q", title=proxy.replace("_", " "), scale=alt.Scale(zero=False))
    dots = (
        alt.Chart(inline(shown.select("proxy", "oracle")))
        .mark_circle(color=POLICY_COLOURS["static_high"], aria=False, opacity=0.55, size=22)
        .encode(x=x, y=alt.Y("oracle:Q", title=ORACLE_TITLES.get(oracle, oracle)))
    )
    curve = (
        alt.Chart(inline(_thin(points).select("proxy", "expected")))
        .mark_line(color=POLICY_COLOURS["adaptive"], aria=False, strokeWidth=2.5)
        .encode(x=x, y="expected:Q")
    )
    layers = [dots, curve] + ([_threshold_rule(threshold, points["proxy"])] if is_number(threshold) else [])
    return finish(alt.layer(*layers), f"Proxy against {oracle}, {shown.height} points, with the calibration.")


def chart_deferral(curves: pl.DataFrame, operating_point: tuple[float, float]) -> Spec:
    """`curves`: escalation_rate, proxy, random, oracle as shares; the point is (rate, agreement)."""
    long = curves.unpivot(
        ORDERS, index="escalation_rate", variable_name="order", value_name="agreement"
    ).drop_nulls()
    x = alt.X("escalation_rate:Q", title="images escalated", axis=alt.Axis(format=".0%"))
    y = alt.Y("agreement:Q", title="agreement", axis=alt.Axis(format=".0%"), scale=alt.Scale(zero=False))
    lines = lines_by_order(long, x, y)
    rate, agreement = operating_point
    at = alt.Chart(alt.InlineData(values=[{"escalation_rate": rate, "agreement": agreement}]))
    point = at.mark_point(filled=True, size=130, color=POLICY_COLOURS["adaptive"], opacity=1).encode(x=x, y=y)
    text = f"{rate:.1%} escalated, {agreement:.1%} agree"
    right = rate > 0.5
    label = at.mark_text(
        text=text, align="right" if right else "left", dx=-12 if right else 12, dy=12, fontSize=12
    ).encode(x=x, y=y)
    return finish(
        alt.layer(lines, point, label), f"Agreement against escalation rate; operating point: {text}."
    )


def chart_frontier(frontier: pl.DataFrame, quality: str, policies: Mapping[str, tuple[float, float]]) -> Spec:
    """`frontier`: columns latency_ms, `quality` with _proxy, _random and _oracle, pareto, knee.

    `policies`: measured (milliseconds, quality) by name, drawn as points.
    """
    long = frontier.unpivot(
        [f"{quality}_{name}" for name in ORDERS],
        index="latency_ms",
        variable_name="order",
        value_name="share",
    ).with_columns(pl.col("order").str.strip_prefix(f"{quality}_"))
    x = alt.X("latency_ms:Q", title="mean ms per image", scale=alt.Scale(zero=False))
    y = alt.Y("share:Q", title=quality, axis=alt.Axis(format=".1%"), scale=alt.Scale(zero=False))
    lines = lines_by_order(long, x, y)
    own = frontier.rename({f"{quality}_proxy": "share"}).select("latency_ms", "share", "pareto", "knee")
    dots = (
        alt.Chart(inline(own.filter(pl.col("pareto") == 1)))
        .mark_circle(color=POLICY_COLOURS["adaptive"], size=34, opacity=1)
        .encode(x=x, y=y)
    )
    layers: list[alt.Chart] = [lines, dots]
    for label, (latency_ms, share) in {**policies, **_knee(own)}.items():
        at = alt.Chart(alt.InlineData(values=[{"latency_ms": latency_ms, "share": share}]))
        colour = POLICY_COLOURS.get(label, POLICY_COLOURS["adaptive"])
        shape = "diamond" if label == "knee" else "square"
        layers.append(
            at.mark_point(filled=True, size=110, color=colour, shape=shape, opacity=1).encode(x=x, y=y)
        )
        layers.append(at.mark_text(text=label.replace("_", " "), dy=-14, fontSize=12).encode(x=x, y=y))
    return finish(alt.layer(*layers), f"{quality} against mean milliseconds per image, for every threshold.")


def _knee(points: pl.DataFrame) -> dict[str, tuple[float, float]]:
    at = points.filter(pl.col("knee") == 1)
    return {"knee": (at["latency_ms"][0], at["share"][0])} if at.height else {}


def chart_signals(gains: pl.DataFrame) -> Spec:
    """`gains`: columns oracle, proxy, value, ci_low and ci_high, of the gain over random escalation."""
    oracles = gains["oracle"].unique(maintain_order=True).to_list()
    y = alt.Y("proxy:N", title=None, sort=alt.EncodingSortField("value", op="max", order="descending"))
    row = alt.YOffset("oracle:N", sort=oracles)
    colours = [POLICY_COLOURS[name] for name in ("static_high", "static_low", "adaptive")]
    colour = colour_by("oracle:N", oracles, colours[: len(oracles)])
    base = alt.Chart(inline(gains)).encode(y=y, yOffset=row, color=colour)
    x = alt.X("ci_low:Q", title="gain: 0 random, 1 oracle")
    bars = base.mark_rule(aria=False, strokeWidth=2).encode(x=x, x2="ci_high:Q")
    dots = base.mark_circle(size=55, opacity=1).encode(x="value:Q")
    return finish(alt.layer(bars, dots), "Gain over random escalation by proxy and oracle, with intervals.")


def chart_latency(percentiles: pl.DataFrame) -> Spec:
    """`percentiles`: percentile (0 to 100) and one column of milliseconds for every policy, or of nulls."""
    percentiles = percentiles.select(column for column in percentiles if not column.is_null().all())
    policies = [name for name in percentiles.columns if name != "percentile"]
    long = percentiles.unpivot(
        policies, index="percentile", variable_name="policy", value_name="ms"
    ).drop_nulls()
    long = long.with_columns(pl.col("policy").str.replace_all("_", " "))
    # One stray image must not squeeze the curves into a corner: the axis ends just beyond p99.
    end_ms = 1.05 * float(long.filter(pl.col("percentile") <= 99)["ms"].max() or 1)  # type: ignore[arg-type]
    lines = (
        alt.Chart(inline(long))
        .mark_line(aria=False, clip=True, strokeWidth=2.5)
        .encode(
            x=alt.X(
                "ms:Q", title="latency of one image, ms", scale=alt.Scale(domain=[0, end_ms], nice=False)
            ),
            y=alt.Y("percentile:Q", title="images done by then, %", scale=alt.Scale(domain=[0, 100])),
            order="percentile:Q",
            color=colour_by(
                "policy:N", [name.replace("_", " ") for name in policies], policy_colours(policies)
            ),
        )
    )
    return finish(lines, f"Share of images done by a latency, single stream, for {', '.join(policies)}.")


def _bin_width(centres: Sequence[float]) -> float:
    return centres[1] - centres[0] if len(centres) > 1 else 1.0


def _is_binary(values: Iterable[float]) -> bool:
    return set(values) <= {0.0, 1.0}


def _group(points: pl.DataFrame) -> pl.DataFrame:
    """Means of groups of equal size along the proxy: single zeros and ones show nothing."""
    group = pl.int_range(pl.len()) * min(GROUPS, points.height) // max(points.height, 1)
    return points.group_by(group.alias("group"), maintain_order=True).agg(pl.col("proxy", "oracle").mean())


def _thin(points: pl.DataFrame) -> pl.DataFrame:
    """Every k-th of the sorted points, so that the page stays light however many images there are."""
    return points.gather_every(max(1, math.ceil(points.height / MOST_POINTS)))


def _threshold_rule(threshold: float, proxies: pl.Series) -> AnyChart:
    """Its label stands on the side with more room."""
    below = (proxies <= threshold).sum()
    return vertical_rule(threshold, "threshold", "right" if below > len(proxies) / 2 else "left")
