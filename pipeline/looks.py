"""How every chart of the report looks: colours, marks and what they share."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import altair as alt
import polars as pl

Spec = dict[str, Any]
AnyChart = alt.Chart | alt.LayerChart | alt.FacetChart

REFERENCE = "#7A7A7A"
# After Okabe and Ito, the blue lightened: told apart with any colour vision, and close to 3:1 or better
# against both of the page's backgrounds.
POLICY_COLOURS = {
    "static_low": "#009E73",
    "static_high": "#2A83C6",
    "adaptive": "#D55E00",
    "static_mid": "#B8699A",
    "random": REFERENCE,
    "oracle": REFERENCE,
}
# The ways to choose what is escalated that a curve is drawn for.
ORDERS = ("proxy", "random", "oracle")


def policy_colours(policies: Sequence[str]) -> list[str]:
    return [POLICY_COLOURS.get(name, "#8A7A00") for name in policies]


def lines_by_order(long: pl.DataFrame, x: alt.X, y: alt.Y) -> alt.Chart:
    """A line for each of ORDERS, by column `order`: the cascade's own drawn through, the others dashed."""
    dashes = alt.Scale(domain=list(ORDERS), range=[[1, 0], [2, 3], [8, 4]])
    lines: alt.Chart = (
        alt.Chart(inline(long))
        .mark_line(aria=False, strokeWidth=2.5)
        .encode(
            x=x,
            y=y,
            color=colour_by("order:N", ORDERS, [POLICY_COLOURS["adaptive"], REFERENCE, REFERENCE]),
            strokeDash=alt.StrokeDash("order:N", scale=dashes, title=None),
        )
    )
    return lines


def inline(frame: pl.DataFrame) -> alt.InlineData:
    """Rows inside the specification; a value that JSON cannot hold becomes a gap."""
    rows = [{key: _json_value(value) for key, value in row.items()} for row in frame.iter_rows(named=True)]
    return alt.InlineData(values=rows)


def _json_value(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def vertical_rule(value: float, name: str, align: Literal["left", "right"] = "left") -> AnyChart:
    base = alt.Chart(alt.InlineData(values=[{"at": value}])).encode(x="at:Q")
    rule = base.mark_rule(strokeDash=[5, 4], strokeWidth=1.5, color=REFERENCE)
    text = base.mark_text(
        text=f"{name} {value:.3g}", align=align, baseline="top", dx=5 if align == "left" else -5, fontSize=12
    )
    return alt.layer(rule, text.encode(y=alt.value(2)))


def colour_by(field: str, names: Sequence[str], colours: Sequence[str]) -> alt.Color:
    scale = alt.Scale(domain=list(names), range=list(colours))
    return alt.Color(field, scale=scale, title=None, legend=alt.Legend(orient="top", symbolStrokeWidth=3))


def finish(chart: AnyChart, description: str) -> Spec:
    """Shared looks; the page's style sheet colours texts and grids, so that dark mode reaches them."""
    finished = chart.properties(width="container", height=280, description=description).configure(
        background="transparent",
        font="system-ui, sans-serif",
        view=alt.ViewConfig(stroke=None),
        axis=alt.AxisConfig(
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            tickCount=6,
            domain=False,
            ticks=False,
        ),
        legend=alt.LegendConfig(labelFontSize=12, symbolType="stroke"),
    )
    spec: Spec = finished.to_dict()
    return spec
