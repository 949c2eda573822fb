import polars as pl
import pytest

from pipeline.charts import (
    chart_deferral,
    chart_delta,
    chart_frontier,
    chart_latency,
    chart_proxy,
    chart_signals,
)
from pipeline.figures import _draw_signals
from pipeline.looks import policy_colours

POINTS = pl.DataFrame({"proxy": [3.0, 1.0, 2.0], "oracle": [0.3, 0.1, 0.2], "expected": [0.3, 0.1, 0.2]})


def rows_of(spec, layer=0):
    """The data of one layer, which Altair keeps under a name."""
    return spec["datasets"][spec["layer"][layer]["data"]["name"]]


def titles_of(spec):
    """Axis titles by channel, from all layers."""
    layers = [spec, *spec.get("layer", [])]
    encodings = [layer.get("encoding", {}) for layer in layers]
    return {c: e[c]["title"] for e in encodings for c in ("x", "y") if e.get(c, {}).get("title")}


def texts_of(spec):
    """All texts that a chart writes into its area."""
    found = [spec["mark"]["text"]] if isinstance(spec.get("mark"), dict) and "text" in spec["mark"] else []
    return found + [text for layer in spec.get("layer", []) for text in texts_of(layer)]


def test_delta_bins_stand_on_their_centres():
    histogram = pl.DataFrame({"delta": [0.5, 1.5], "images": [4, 2]})
    spec = chart_delta(histogram, {"p50": 0.8, "p90": 1.6})
    assert [(row["left"], row["right"], row["images"]) for row in rows_of(spec)] == [
        (0.0, 1.0, 4),
        (1.0, 2.0, 2),
    ]
    assert texts_of(spec) == ["p50 0.8", "p90 1.6"]
    assert spec["description"] == "Histogram of delta over 6 images."


def test_delta_without_a_summary_has_bars_only():
    assert len(chart_delta(pl.DataFrame({"delta": [0.5], "images": [4]}), None)["layer"]) == 1


@pytest.mark.parametrize(
    ("oracle", "title"),
    [
        ("delta", "delta (distance of the two embeddings)"),
        ("disagreement", "share whose top-1 changes"),
        ("benefit", "share that only high gets right"),
    ],
)
def test_axes_say_what_the_oracle_is(oracle, title):
    assert titles_of(chart_proxy(POINTS, oracle, "cls_change", 2.5)) == {"x": "cls change", "y": title}


def test_the_curve_is_the_calibration_in_order_of_the_proxy():
    curve = rows_of(chart_proxy(POINTS, "delta", "cls_change", 2.5), 1)
    assert curve == [
        {"proxy": 1, "expected": 0.1},
        {"proxy": 2, "expected": 0.2},
        {"proxy": 3, "expected": 0.3},
    ]


def test_threshold_is_drawn_where_it_is_a_number():
    assert texts_of(chart_proxy(POINTS, "delta", "cls_change", 2.5)) == ["threshold 2.5"]


@pytest.mark.parametrize("threshold", [1.7976931348623157e308, -1.7976931348623157e308, float("inf")])
def test_always_and_never_are_not_drawn(threshold):
    assert texts_of(chart_proxy(POINTS, "delta", "cls_change", threshold)) == []


def test_zeros_and_ones_become_shares_of_groups():
    points = pl.DataFrame(
        {"proxy": [float(k) for k in range(40)], "oracle": [0.0, 1.0] * 20, "expected": [0.5] * 40}
    )
    dots = rows_of(chart_proxy(points, "disagreement", "margin", 2.5))
    assert dots == [{"proxy": 2 * k + 0.5, "oracle": 0.5} for k in range(20)]


def test_nan_proxies_are_left_out_of_the_chart():
    points = POINTS.with_columns(proxy=pl.Series([float("nan"), 1.0, 2.0]))
    assert len(rows_of(chart_proxy(points, "delta", "cls_change", 2.5))) == 2


def test_many_points_are_thinned():
    count = 7000
    points = pl.DataFrame(
        {name: [float(k) for k in range(count)] for name in ("proxy", "oracle", "expected")}
    )
    assert len(rows_of(chart_proxy(points, "delta", "cls_change", 2.5))) == 2334


def test_deferral_has_three_curves_and_the_operating_point():
    columns = {"escalation_rate": [0.0, 1.0], "proxy": [0.8, 1], "random": [0.8, 1], "oracle": [0.8, 1]}
    spec = chart_deferral(pl.DataFrame(columns), (0.25, 0.9))
    assert {row["order"] for row in rows_of(spec)} == {"proxy", "random", "oracle"}
    assert rows_of(spec, 1) == [{"escalation_rate": 0.25, "agreement": 0.9}]
    assert texts_of(spec) == ["25.0% escalated, 90.0% agree"]


def test_without_a_gain_there_are_no_signals_to_draw():
    assert _draw_signals({"delta": {"margin": {"gain_over_random": None}}}) == []


def test_signals_show_every_proxy_under_every_oracle_with_its_interval():
    gains = pl.DataFrame(
        {
            "oracle": ["delta", "benefit", "delta"],
            "proxy": ["margin", "margin", "energy"],
            "value": [0.4, 0.5, 0.2],
            "ci_low": [0.3, 0.4, 0.1],
            "ci_high": [0.5, 0.6, 0.3],
        }
    )
    spec = chart_signals(gains)
    assert spec["datasets"][spec["data"]["name"]] == gains.to_dicts()
    assert spec["layer"][0]["encoding"]["x2"]["field"] == "ci_high"


def test_the_frontier_names_the_policies_and_the_knee():
    frontier = pl.DataFrame(
        {
            "latency_ms": [2.0, 5.0, 11.0],
            **{f"accuracy_{order}": [0.4, 0.5, 0.5] for order in ("proxy", "random", "oracle")},
            "pareto": [1, 1, 0],
            "knee": [0, 1, 0],
        }
    )
    spec = chart_frontier(frontier, "accuracy", {"static_mid": (4.0, 0.45)})
    assert texts_of(spec) == ["static mid", "knee"]
    assert [row["latency_ms"] for row in rows_of(spec, 1)] == [2.0, 5.0]


def test_latency_shows_whatever_policies_there_are_and_ends_beyond_p99():
    percentiles = pl.DataFrame(
        {"percentile": [50, 99, 100], "static_mid": [1, 2, 900], "adaptive": [2, 4, 9]}
    )
    spec = chart_latency(percentiles)
    assert spec["encoding"]["color"]["scale"]["domain"] == ["static mid", "adaptive"]
    assert spec["encoding"]["x"]["scale"]["domain"] == [0, 4.2]


def test_a_policy_keeps_its_colour_in_any_company():
    assert policy_colours(["adaptive"]) == policy_colours(["static_low", "adaptive"])[1:]
    assert len(set(policy_colours(["static_low", "static_mid", "static_high", "adaptive", "new"]))) == 5
