import pytest
from click.testing import CliRunner

from pipeline.conditions import list_conditions
from pipeline.errors import PipelineError
from pipeline.findings import describe_engine, describe_speed
from pipeline.measured import read_metrics
from pipeline.recommend import confidence_each
from pipeline.results import format_markdown, format_terminal, replace_results
from pipeline.verdicts import judge_fit
from stages.results import main
from tests.conftest import REPOSITORY
from tests.report_inputs import ENVIRONMENT, fit_metrics, policy_metrics, scenario_metrics, write_metrics

TERMINAL = """\
Single stream: one image at a time; 2,000 images in 80 blocks

policy           mean ms  p50 ms  p90 ms  p99 ms  images/s  escalated  agreement  accuracy  peak MB
static low          2.50    2.40    3.50       –     400.0      0.0 %     80.0 %         –       62
static high        10.00    9.90   11.00       –     100.0    100.0 %    100.0 %         –       62
adaptive            4.00    3.90    5.00       –     250.0     10.0 %     87.5 %         –       62
random, as many        –       –       –       –         –     10.0 %     82.0 %         –        –
oracle, as many        –       –       –       –         –     10.0 %     90.0 %         –        –

Speed-up over static high: 2.50× (interval 2.40× to 2.60×)
Ideal bound: 2.86×; overhead over the ideal: 14.3 % (interval 10.0 % to 20.0 %); within the bound: yes
Stable: yes

The proxy beats random escalation at finding what the oracle would: gain 0.40 (interval 0.30 to 0.50), \
where 0 is random and 1 the oracle.
Escalating 10.0 % gives agreement 87.5 %: above random escalation's 82.0 %, \
+5.5 points (interval +4.0 points to +7.0 points); choosing by the oracle itself, 90.0 %.
Engine against eager float32 on 256 images: 99.5 % of the decisions equal; largest error 1.2e-02 of the \
largest value, within the tolerance 5e-02.

Conditions: device cpu; processor Test CPU; threads 2 (of 4 cores); backend eager; precision float32; \
batch 64; resolutions low 32 px, mid 48 px, high 64 px; images 3 calibration, 3,000 evaluation; \
weights random (sha256 0123456789ab); versions python 3.12.1, torch 2.15.0, timm 1.0.31; system Linux; \
timed transfer, resize, normalisation, passes, proxy, decision, answer on the host; not the decoding; \
commit fedcba9876543210.
"""
MARKDOWN_TABLE = """\
| policy | mean ms | p50 ms | p90 ms | p99 ms | images/s | escalated | agreement | accuracy | peak MB |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
| static low | 2.50 | 2.40 | 3.50 | – | 400.0 | 0.0 % | 80.0 % | – | 62 |
| static high | 10.00 | 9.90 | 11.00 | – | 100.0 | 100.0 % | 100.0 % | – | 62 |
| adaptive | 4.00 | 3.90 | 5.00 | – | 250.0 | 10.0 % | 87.5 % | – | 62 |
| random, as many | – | – | – | – | – | 10.0 % | 82.0 % | – | – |
| oracle, as many | – | – | – | – | – | 10.0 % | 90.0 % | – | – |
"""

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


@pytest.fixture
def metrics(tmp_path):
    """Writes the metrics with changes, and reads them."""
    return lambda **documents: read_metrics(write_metrics(tmp_path / "metrics", **documents))


def test_terminal_text_is_exactly_this(metrics):
    assert format_terminal(metrics()) == TERMINAL


def test_markdown_table_is_exactly_this(metrics):
    assert MARKDOWN_TABLE in format_markdown(metrics())


def test_offline_has_a_mean_and_no_percentiles(metrics):
    scenario = scenario_metrics(adaptive=policy_metrics(4, 0.1, 0.875) | {"latency_ms": {"mean": 4.0}})
    text = format_terminal(metrics(replay={"offline": scenario}))
    assert text.startswith("Offline: full batches; 2,000 images in 80 blocks\n")
    assert "adaptive            4.00       –       –       –     250.0" in text


def test_single_stream_comes_before_offline(metrics):
    text = format_terminal(
        metrics(replay={"offline": scenario_metrics(), "single_stream": scenario_metrics()})
    )
    assert text.index("Single stream") < text.index("Offline")


def test_accuracy_and_a_fourth_policy_are_shown_in_the_order_of_the_file(metrics):
    scenario = {"static_mid": policy_metrics(0.5, 0, 0.9, accuracy=0.515)} | scenario_metrics()
    rows = format_terminal(metrics(replay={"single_stream": scenario})).splitlines()[3:7]
    assert [row.split("  ")[0] for row in rows] == ["static mid", "static low", "static high", "adaptive"]
    assert " ".join(rows[0].split()) == "static mid 0.500 0.400 1.50 – 2,000.0 0.0 % 90.0 % 51.5 % 62"


def test_a_result_beyond_the_bound_shows_no_speedup(metrics):
    scenario = scenario_metrics(
        within_bound=0, speedup_vs_static_high={"median": 3.07, "ci_low": 3.0, "ci_high": 3.1}
    )
    found = metrics(replay={"single_stream": scenario})
    for text in (format_terminal(found), format_markdown(found)):
        assert "Speed-up over static high: measuring error: beats the ideal bound of 2.86×" in text
        assert "adaptive (measuring error)" in text
        assert "3.07" not in text
        assert "overhead" not in text


def test_few_blocks_that_beat_the_bound_show_no_speedup(metrics):
    scenario = scenario_metrics(
        blocks=4, speedup_vs_static_high={"median": 3.07, "ci_low": 3.0, "ci_high": 3.1}
    )
    del scenario["within_bound"]
    text = format_terminal(metrics(replay={"single_stream": scenario}))
    assert "Speed-up over static high: too few blocks: beats the ideal bound of 2.86×" in text
    assert "adaptive (too few blocks)" in text
    assert "3.07" not in text


def test_a_result_never_compared_with_the_bound_shows_no_speedup():
    scenario = scenario_metrics()
    del scenario["within_bound"]
    assert "2.50" not in " ".join(describe_speed(scenario))


def test_few_blocks_are_said_to_make_intervals_too_narrow():
    assert "The intervals are of 4 blocks alone" in " ".join(describe_speed(scenario_metrics(blocks=4)))
    assert "alone" not in " ".join(describe_speed(scenario_metrics(blocks=10)))


def test_unstable_results_are_marked(metrics):
    text = format_terminal(metrics(replay={"single_stream": scenario_metrics(stable=0)}))
    assert "80 blocks; UNSTABLE\n" in text
    assert "adaptive (unstable)" in text
    assert "UNSTABLE: the timing did not settle" in text


def test_decisions_that_differ_from_those_of_fit_are_told():
    assert "Decisions equal to those of fit: 99.5 %" in describe_speed(
        scenario_metrics(decision_agreement=0.995)
    )


def test_a_useless_proxy_is_called_so():
    fit = fit_metrics(beats_random=0)
    fit["evaluation"]["gain_over_random"] = {"value": -0.2, "ci_low": -0.3, "ci_high": -0.1}
    text, holds = judge_fit(fit)[0]
    assert text == (
        "The proxy does NOT beat random escalation on this data: gain -0.20 (interval -0.30 to -0.10), "
        "where 0 is random and 1 the oracle."
    )
    assert not holds


def test_of_few_events_nothing_is_said_of_the_order():
    text, holds = judge_fit(fit_metrics(beats_random=0) | {"told": 0})[0]
    assert "cannot be told from random escalation, of so few images or events" in text
    assert not holds


def test_an_engine_that_answers_no_numbers_is_said_to():
    (line,) = describe_engine(
        {"images": 8, "tolerance": 0.05, "within_tolerance": 0, "decision_agreement": 0.5}
    )
    assert "largest error is no number, BEYOND the tolerance" in line


def test_how_sure_intervals_are_is_said_where_it_is_known(metrics):
    known = metrics(fit=fit_metrics() | {"confidence": 0.95})
    assert "intervals" not in dict(list_conditions(known))
    replayed = {"single_stream": scenario_metrics(confidence=0.9)}
    told = metrics(fit=fit_metrics() | {"confidence": 0.95}, replay=replayed)
    assert dict(list_conditions(told))["intervals"] == "90.0 % of times, 95.0 % of the rest"


def test_an_undefined_gain_is_no_success():
    fit = fit_metrics(beats_random=0)
    del fit["evaluation"]["gain_over_random"]
    text, holds = judge_fit(fit)[0]
    assert "does NOT beat random escalation on this data: gain undefined" in text
    assert not holds


@pytest.mark.parametrize(
    ("difference", "holds", "words"),
    [
        ({"value": 0.01, "ci_low": 0.001, "ci_high": 0.02}, True, "87.5 %: above random"),
        ({"value": 0.01, "ci_low": -0.001, "ci_high": 0.02}, False, "87.5 %: NOT above random"),
        ({"value": 0.01, "ci_low": 0.001, "ci_high": 0.02, "chance": 0.01}, True, "87.5 %: above random"),
        (
            {"value": 0.01, "ci_low": 0.001, "ci_high": 0.02, "chance": 0.4},
            False,
            "but random escalation does as well in 40.0 % of cases; choosing",
        ),
        (None, True, "87.5 %: above random escalation's 82.0 %; choosing"),
    ],
)
def test_agreement_above_random_needs_the_interval_where_there_is_one(difference, holds, words):
    fit = fit_metrics()
    fit["evaluation"]["agreement_over_random"] = difference
    verdict = judge_fit(fit)[1]
    assert verdict.holds is holds
    assert words in verdict.text


def test_of_few_images_agreement_is_not_said_to_be_no_better():
    fit = fit_metrics()
    fit["evaluation"] |= {
        "images": 20,
        "agreement_over_random": {"value": 0.1, "ci_low": 0.05, "ci_high": 0.2},
    }
    verdict = judge_fit(fit)[1]
    assert "87.5 %: of too few images to be told from random escalation's 82.0 %" in verdict.text
    assert not verdict.holds


def test_the_gpu_is_named_only_where_it_did_the_work(metrics):
    on_cpu = metrics(environment=ENVIRONMENT | {"gpu": "H100"})
    assert dict(list_conditions(on_cpu))["device"] == "cpu"
    on_gpu = metrics(environment=ENVIRONMENT | {"gpu": "H100", "device": "cuda:0"})
    assert dict(list_conditions(on_gpu))["device"] == "cuda:0, H100"


def test_names_cannot_become_markdown(metrics):
    text = format_markdown(metrics(environment=ENVIRONMENT | {"processor": "a|b <i>*c*"}))
    assert r"processor a\|b \<i\>\*c\*;" in text


def test_replacing_twice_equals_replacing_once():
    readme = f"# Title\n\n{BEGIN}\nold\n{END}\n\nAfter\n"
    once = replace_results(readme, "new\n", "README.md")
    assert once == f"# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nAfter\n"
    assert replace_results(once, "new\n", "README.md") == once


@pytest.mark.parametrize("readme", ["", BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_missing_or_disordered_markers_are_an_error(readme):
    with pytest.raises(PipelineError, match=r"README\.md: found \d × <!-- results:begin -->"):
        replace_results(readme, "new\n", "README.md")


@pytest.mark.parametrize("name", ["replay", "fit", "environment"])
def test_a_missing_file_names_the_stage_that_writes_it(metrics, name):
    stage = "fit" if name == "fit" else "replay"
    with pytest.raises(PipelineError, match=rf"{name}\.json: not found; stage {stage} writes it"):
        metrics(**{name: None})


def test_a_precision_of_lows_own_is_named(metrics):
    mixed = metrics(environment=ENVIRONMENT | {"low_precision": "int8"})
    assert dict(list_conditions(mixed))["precision"] == "float32 (low: int8)"


RUNS = REPOSITORY / "docs/low_precision"
PAGE = REPOSITORY / "docs/low_precision.md"


@pytest.mark.parametrize("run", ["certified", "half_a_point", "all_int8", "int8_at_36px"])
def test_the_page_on_precision_shows_the_runs_beside_it(run):
    page = PAGE.read_text(encoding="utf-8")
    assert replace_results(page, format_markdown(read_metrics(RUNS / run)), PAGE.name, run) == page


def test_what_the_page_on_precision_says_of_its_runs():
    certified, half_a_point, all_int8, at_36px = (
        read_metrics(RUNS / run) for run in ("certified", "half_a_point", "all_int8", "int8_at_36px")
    )
    for mixed in (certified, half_a_point):
        precisions = mixed.environment["precision"], mixed.environment["low_precision"]
        assert precisions == ("float32", "int8")
    for run in (all_int8, at_36px):
        assert (run.environment["precision"], run.environment.get("low_precision")) == ("int8", None)
    for run in (certified, half_a_point, all_int8, at_36px):
        assert (run.fit["calibration"]["images"], run.fit["evaluation"]["images"]) == (5000, 5000)
        assert run.replay["single_stream"]["stable"] == run.replay["offline"]["stable"] == 1
    for run in (certified, all_int8):
        promise = run.fit["certificate"]
        assert (promise["certified"], promise["alpha"], promise["confidence"]) == (1, 0.02, 0.9)
    assert half_a_point.environment["sizes_px"]["low"] == 44
    assert f"fit.threshold.value={half_a_point.fit['threshold_proxy']}" in PAGE.read_text(encoding="utf-8")
    policies = half_a_point.replay["single_stream"]
    assert policies["static_high"]["accuracy"] - policies["adaptive"]["accuracy"] <= 0.005
    gains, high_ms = (
        [read(run.replay["single_stream"]) for run in (certified, all_int8)]
        for read in (
            lambda found: found["speedup_vs_static_high"]["median"],
            lambda found: found["static_high"]["latency_ms"]["mean"],
        )
    )
    # In int8 static high is faster as well, and adaptive inference gains less over it.
    assert high_ms[1] < high_ms[0]
    assert gains[1] < gains[0]
    rival = all_int8.replay["single_stream"]["static_high"]
    mixed = [run.replay["single_stream"] for run in (certified, half_a_point)]
    # Times of two runs: an eighth is what the same pass differs by.
    for policy in ("static_mid", "static_high"):
        slow, fast = sorted((found[policy]["latency_ms"]["mean"] for found in mixed), reverse=True)
        assert slow < 9 / 8 * fast
    first, second = (rival["latency_ms"]["mean"] / found["adaptive"]["latency_ms"]["mean"] for found in mixed)
    assert first < 8 / 9 < second < 9 / 8
    assert rival["accuracy"] >= max(found["adaptive"]["accuracy"] for found in mixed)


def test_what_the_page_on_precision_says_of_36px():
    run = read_metrics(RUNS / "int8_at_36px")
    policies, promise = run.replay["single_stream"], run.fit["certificate"]
    assert run.environment["sizes_px"]["low"] == 36
    assert policies["speedup_vs_static_high"]["ci_low"] > 1.5
    assert policies["static_mid"]["latency_ms"]["mean"] < policies["adaptive"]["latency_ms"]["mean"]
    assert policies["static_mid"]["accuracy"] == pytest.approx(policies["adaptive"]["accuracy"], abs=5e-4)
    # Three sizes came into question: 0.9 for whichever is taken.
    assert (promise["certified"], promise["alpha"]) == (1, 0.02)
    assert promise["confidence"] >= confidence_each(0.9, 3)


def test_the_command_writes_the_part_that_it_is_told(project):
    write_metrics(project / "metrics")
    page = project / "page.md"
    page.write_text("<!-- mine:begin -->\n<!-- mine:end -->\n")
    found = CliRunner().invoke(main, ["--readme", str(page), "--part", "mine"])
    assert found.exit_code == 0, found.output
    assert MARKDOWN_TABLE in page.read_text()


def test_the_command_prints_and_writes_the_readme(project):
    write_metrics(project / "metrics")
    readme = project / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    assert CliRunner().invoke(main, []).output == TERMINAL
    assert MARKDOWN_TABLE in CliRunner().invoke(main, ["--markdown"]).output
    assert CliRunner().invoke(main, ["--readme", str(readme)]).exit_code == 0
    assert MARKDOWN_TABLE in readme.read_text()
