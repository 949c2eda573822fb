import base64
import functools
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import vl_convert
from click.testing import CliRunner
from PIL import Image

from pipeline.details import list_details
from pipeline.errors import PipelineError
from pipeline.gallery import _data_uri, load_pictures, pick_extremes
from pipeline.measured import Metrics
from pipeline.report import read_report_inputs, render_report
from pipeline.tables import IMAGES, read_table, write_table
from pipeline.verdicts import judge_fit
from stages.report import main
from tests.archives import jpeg
from tests.imports import import_closure, outside_imports
from tests.made import images_table
from tests.report_inputs import (
    DELTA,
    DELTA_VALUES,
    ENVIRONMENT,
    EXTRACT,
    IDS,
    PROFILE,
    SCRIPT,
    fit_metrics,
    policy_metrics,
    scenario_metrics,
    write_policy,
    write_project,
)

STAGE = Path(__file__).parent.parent / "stages/report.py"


class Page(HTMLParser):
    """The elements with their attributes, the text of scripts, and all other text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.scripts, self.text, self._inside = [], [], "", None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):  # noqa: ARG002
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data


def inputs_of(root, gallery_images=2):
    data = root / "data"
    return read_report_inputs(
        images=data / "images.parquet",
        deltas=data / "deltas.parquet",
        replay=data / "replay.parquet",
        policy=root / "models/policy.json",
        metrics=root / "metrics",
        gallery_images=gallery_images,
    )


def page_of(root):
    return Page(render_report(inputs_of(root)))


def specs_of(page):
    return {
        attributes["id"]: json.loads(text)
        for (_, attributes), text in zip(
            [element for element in page.elements if element[0] == "script"], page.scripts, strict=True
        )
        if attributes.get("type") == "application/json"
    }


@pytest.fixture(scope="module", autouse=True)
def _bundle_once():
    """The bundle takes a second to make, and is the same for every page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vl_convert, "javascript_bundle", functools.cache(vl_convert.javascript_bundle))
        yield


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    return render_report(inputs_of(write_project(tmp_path_factory.mktemp("report"), profile=PROFILE)))


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_headline_says_what_was_found(page):
    assert (
        "One image at a time, adaptive inference is 2.50× as fast as always using the high resolution, "
        "and gives the same answer for 87.5 % of the images." in page.text
    )
    assert "The proxy beats random escalation" in page.text


def test_nothing_is_loaded_from_anywhere(html, page):
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert "@import" not in style
    assert "url(" not in style
    for spec in specs_of(page).values():
        assert '"url"' not in json.dumps(spec)


def test_the_policy_allows_only_the_page_s_own_script(page):
    (policy,) = [a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a]
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-[\w+/=]{44}'",
        policy,
    )


def test_names_that_are_scripts_stay_text(html, page):
    assert SCRIPT not in html
    assert f"tabby {SCRIPT}" in page.text
    assert f"val/{SCRIPT}.JPEG" in page.text
    assert [element for element in page.elements if element[0] == "script"][-1][1] == {"type": "module"}
    assert len(page.scripts) == 6  # five charts and the bundle


def test_images_have_alternative_texts_and_tables_have_headers(page):
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) == 4
    assert all(attributes["alt"].startswith("Enlarged image val/") for attributes in images)
    assert all(attributes["src"].startswith("data:image/jpeg;base64,/9j/") for attributes in images)
    assert all("scope" in attributes for tag, attributes in page.elements if tag == "th")


def test_the_page_is_light_and_the_same_every_time(html, tmp_path):
    assert len(html.encode()) < 2_000_000
    assert render_report(inputs_of(write_project(tmp_path, profile=PROFILE))) == html


def test_extremes_are_sorted_and_ties_are_broken_by_name():
    deltas = pl.DataFrame({"image_id": ["b", "c", "a", "d"], "delta": [1.0, 3.0, 1.0, 3.0]})
    largest, smallest = pick_extremes(deltas, 3)
    assert largest["image_id"].to_list() == ["c", "d", "a"]
    assert smallest["image_id"].to_list() == ["a", "b", "c"]


def test_gallery_shows_the_largest_and_the_smallest_delta(tmp_path):
    inputs = inputs_of(write_project(tmp_path))
    assert [(picture.image_id, picture.delta) for picture in inputs.largest] == [(IDS[2], 3.5), (IDS[1], 2.5)]
    assert [(picture.image_id, picture.delta) for picture in inputs.smallest] == [
        (IDS[4], 0.25),
        (IDS[0], 0.5),
    ]
    assert [picture.agree for picture in inputs.largest + inputs.smallest] == [False, False, True, True]
    # Only evaluation images are replayed: those of the calibration split were never decided upon.
    assert [picture.escalated for picture in inputs.largest] == [None, True]
    assert [picture.class_words for picture in inputs.smallest] == ["goldfish", "goldfish"]


def test_an_image_goes_with_its_own_delta(tmp_path):
    inputs = inputs_of(write_project(tmp_path), gallery_images=6)
    assert {p.image_id: p.delta for p in inputs.largest} == dict(zip(IDS, DELTA_VALUES, strict=True))
    rows = pl.DataFrame({"image_id": [IDS[3]], "delta": [1.0], "agree": [True]})
    (alone,) = load_pictures(tmp_path / "data/images.parquet", rows, {})
    assert alone.data_uri == next(p.data_uri for p in inputs.largest if p.image_id == IDS[3])


@pytest.mark.parametrize(("kind", "size"), [("JPEG", (900, 450)), ("TIFF", (20, 10)), ("PNG", (300, 300))])
def test_what_no_browser_shows_or_is_large_goes_into_the_page_as_a_small_jpeg(tmp_path, kind, size):
    table = read_table(images_table(tmp_path / "images.parquet", 2), IMAGES.names)
    content = jpeg(0, size=size, format=kind)
    table = table.set_column(table.column_names.index("jpeg"), "jpeg", pa.array([content] * 2, pa.binary()))
    write_table(tmp_path / "images.parquet", table.cast(IMAGES), {"classes": []})
    rows = pl.DataFrame({"image_id": table["image_id"][:1].to_pylist(), "delta": [1.0], "agree": [True]})
    (picture,) = load_pictures(tmp_path / "images.parquet", rows, {})
    head, _, encoded = picture.data_uri.partition(",")
    shown = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert (head, shown.format) == ("data:image/jpeg;base64", "JPEG")
    assert shown.size == (size if kind == "TIFF" else (256, 256 * size[1] // size[0]))


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_grey_of_any_depth_is_shown_as_it_is(depth):
    stream = io.BytesIO()
    Image.fromarray(np.full((40, 40), np.iinfo(depth).max // 2, dtype=depth)).save(stream, "PNG")
    shown = Image.open(io.BytesIO(base64.b64decode(_data_uri(stream.getvalue()).partition(",")[2])))
    assert abs(np.asarray(shown).astype(int) - 127).max() <= 1


def test_grey_of_ten_bits_is_shown_as_it_is():
    levels = b"P5 4 4 1023\n" + (511).to_bytes(2, "big") * 16
    shown = Image.open(io.BytesIO(base64.b64decode(_data_uri(levels).partition(",")[2])))
    assert abs(np.asarray(shown).astype(int) - 127).max() <= 1


def test_what_pillow_refuses_is_shown_grey():
    shown = Image.open(io.BytesIO(base64.b64decode(_data_uri(b"\x89PNG, but no more").partition(",")[2])))
    assert np.ptp(np.asarray(shown)) == 0


def test_a_measuring_error_is_no_headline(tmp_path):
    speedup = {"median": 3.07, "ci_low": 3.0, "ci_high": 3.1}
    scenario = scenario_metrics(within_bound=0, speedup_vs_static_high=speedup)
    text = page_of(write_project(tmp_path, replay={"single_stream": scenario})).text
    assert "no speed-up can be reported: the times beat the ideal bound: measuring error." in text
    assert "beats the ideal bound: measuring error" in text
    assert "3.07" not in text


def test_random_weights_are_said_to_be_random(tmp_path, page):
    assert "The weights are random: the times are real" in page.text
    trained = ENVIRONMENT | {"weights": "models/static_vit.safetensors"}
    text = page_of(write_project(tmp_path, environment=trained)).text
    assert "The weights are random" not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stable": 0}, "the timing did not settle; the speed-up of 2.50× is not to be relied on"),
        (
            {"speedup_vs_static_high": {"median": 0.9, "ci_low": 0.8, "ci_high": 0.95}},
            "adaptive inference is slower than always using the high resolution (0.90×)",
        ),
        (
            {"speedup_vs_static_high": {"median": 1.01, "ci_low": 0.98, "ci_high": 1.04}},
            "cannot be told to be faster or slower than always using the high resolution (1.01×, interval",
        ),
        (
            {"speedup_vs_static_high": {"median": 1.003, "ci_low": 1.001, "ci_high": 1.007}},
            "adaptive inference is 1.003× as fast as",
        ),
    ],
)
def test_no_success_is_claimed_without_one(tmp_path, changes, words):
    root = write_project(tmp_path, replay={"single_stream": scenario_metrics(**changes)})
    assert words in page_of(root).text


def test_two_blocks_tell_nothing_of_stability(tmp_path):
    scenario = scenario_metrics(blocks=2, stable=0)
    text = page_of(write_project(tmp_path, replay={"single_stream": scenario})).text
    assert "Stable: unknown, of so few blocks" in text
    assert "of 2 blocks, too few to be relied on" in text
    assert "UNSTABLE" not in text
    assert "unstable" not in text


def test_of_few_blocks_no_speed_up_is_claimed(tmp_path):
    text = page_of(write_project(tmp_path, replay={"single_stream": scenario_metrics(blocks=4)})).text
    assert "the speed-up of 2.50× is of 4 blocks, too few to be relied on" in text
    assert "as fast as always" not in text


def test_a_proxy_no_better_than_random_is_said_to_be(tmp_path):
    root = write_project(tmp_path, fit=fit_metrics(beats_random=0))
    assert "The proxy does NOT beat random escalation on this data" in page_of(root).text


def test_offline_alone_has_no_latency_of_one_image(tmp_path):
    page = page_of(write_project(tmp_path, replay={"offline": scenario_metrics()}))
    assert "In full batches, adaptive inference is 2.50× as fast" in page.text
    assert set(specs_of(page)) == {"spec-frontier", "spec-deferral", "spec-proxy", "spec-delta"}


def test_accuracy_is_shown_where_it_is_known(tmp_path):
    scenario = scenario_metrics(adaptive=policy_metrics(4, 0.1, 0.875, accuracy=0.515))
    delta = DELTA | {"accuracy": {"low": 0.31, "high": 0.525}, "benefit_rate": 0.25, "breakage_rate": 0.035}
    text = page_of(write_project(tmp_path, replay={"single_stream": scenario}, delta=delta)).text
    for value in ("51.5 %", "31.0 %", "52.5 %", "25.0 %", "3.5 %"):
        assert value in text


def test_optional_files_add_tables(tmp_path, page):
    root = write_project(tmp_path, delta=None)
    bare = page_of(root).text
    assert "Cost of a forward pass" in page.text
    assert "4.20×" in page.text
    for title in ("Cost of a forward pass", "Extraction", "Low against high"):
        assert title not in bare
    (root / "metrics/extract").mkdir()
    (root / "metrics/extract/low.json").write_text(json.dumps(EXTRACT))
    assert "11.5" in page_of(root).text


@pytest.mark.parametrize(
    ("threshold", "word"), [(1.7976931348623157e308, "never"), (-1.7976931348623157e308, "always")]
)
def test_thresholds_without_a_number_are_words(tmp_path, threshold, word):
    root = write_project(tmp_path)
    write_policy(root, threshold=threshold)
    page = page_of(root)
    assert f"The threshold escalates {word}, so no line is drawn." in page.text
    assert "e+308" not in page.text


def test_a_binary_oracle_is_read_from_the_deltas(tmp_path):
    root = write_project(tmp_path)
    write_policy(root, oracle="disagreement")
    spec = specs_of(page_of(root))["spec-proxy"]
    dots = spec["datasets"][spec["layer"][0]["data"]["name"]]
    # By proxy: e agrees, a agrees, d agrees, f differs, b differs, and the script differs.
    assert [dot["oracle"] for dot in dots] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("data/images.parquet", "prepare"),
        ("data/deltas.parquet", "delta"),
        ("data/replay.parquet", "replay"),
        ("models/policy.json", "fit"),
        ("metrics/fit.json", "fit"),
        ("metrics/plots/deferral.csv", "fit"),
        ("metrics/plots/delta_histogram.csv", "delta"),
    ],
)
def test_a_missing_file_names_the_stage_that_writes_it(tmp_path, name, stage):
    root = write_project(tmp_path)
    (root / name).unlink()
    with pytest.raises(PipelineError, match=rf"{re.escape(name)}: not found; stage {stage} writes it"):
        inputs_of(root)


def test_plot_data_of_other_images_are_refused(tmp_path):
    root = write_project(tmp_path)
    path = root / "metrics/plots/proxy_delta.csv"
    path.write_text(path.read_text().replace("val/a.JPEG", "val/z.JPEG"))
    with pytest.raises(
        PipelineError, match=r"proxy_delta\.csv: 1 of its images have no delta; run fit again"
    ):
        render_report(inputs_of(root))


def test_the_command_writes_the_page(project, html):
    write_project(project, profile=PROFILE)
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("data/report.html: ")
    assert (project / "data/report.html").read_text() == html


def test_the_report_needs_no_torch():
    assert "torch" not in outside_imports(import_closure(STAGE))


def test_every_oracle_has_its_table_of_proxies_best_first():
    def item(gain):
        ends = {"value": gain, "ci_low": gain - 0.1, "ci_high": gain + 0.1}
        return {"gain_over_random": ends, "difference": ends, "auroc": 0.7, "agreement": {"at_10": 0.9}}

    by_proxy = {"margin": item(0.2), "energy": item(0.5), "entropy": {"agreement": {"at_10": 0.8}}}
    compared = {"benefit": by_proxy, "overlap": {"far_and_benefit": 0.05}}
    metrics = Metrics(
        replay={}, fit={}, environment={}, proxies=compared, proxy_costs={"cost_us": {"energy": 12.3}}
    )
    (title, grid), (_, overlap) = list_details(metrics)
    assert overlap.rows == (("far and benefit", "5.0 %"),)
    assert title == "Which signal predicts benefit, at 10 % escalated"
    assert [row[0] for row in grid.rows] == ["energy", "margin", "entropy"]
    assert grid.rows[0][1:] == ("0.50", "0.40 to 0.60", "0.40 to 0.60", "0.70", "90.0 %", "–", "12")
    assert grid.rows[2][1:] == ("–", "– to –", "– to –", "–", "80.0 %", "–", "–")


@pytest.mark.parametrize(
    ("certified", "risk", "holds"), [(1, 0.018, True), (1, 0.04, False), (0, 0.0, False)]
)
def test_a_certificate_is_told_with_what_became_of_it(certified, risk, holds):
    certificate = {"alpha": 0.02, "confidence": 0.9, "images": 4000, "harmful": 60, "risk_bound": 0.018}
    fit = fit_metrics()
    fit["certificate"] = certificate | {"certified": certified}
    fit["evaluation"]["certified_risk"] = {"value": risk, "ci_low": risk - 0.004, "ci_high": risk + 0.004}
    verdict = judge_fit(fit)[-1]
    assert verdict.holds is holds
    assert verdict.text.startswith(
        "Certified: risk at most 0.02" if certified else "NOT certified: risk at most 0.02"
    )
    assert "60 harmed of 4,000 images" in verdict.text
    assert ("where it is NOT kept" in verdict.text) is (risk == 0.04)
