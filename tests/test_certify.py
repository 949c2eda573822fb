import numpy as np
import pytest
from mapie.risk_control import BinaryClassificationController, BinaryRisk
from scipy.stats import binom

from pipeline.certify import certify, count_needed, describe_remedy, list_candidates, risk_bound, set_apart
from pipeline.errors import PipelineError
from pipeline.policy import ALWAYS_ESCALATE, NEVER_ESCALATE, escalate
from pipeline.verdicts import judge_fit
from tests.report_inputs import fit_metrics

DELTA = 0.1
SIMULATIONS = 600
# Three standard errors of a share of DELTA over so many simulations.
MARGIN = 3 * (DELTA * (1 - DELTA) / SIMULATIONS) ** 0.5


def certified_with(harmful, images, alpha):
    """Whether one threshold that leaves `harmful` of `images` harmed is certified."""
    harmed = np.arange(images) < harmful
    return certify(np.zeros(images), harmed, np.array([1.0]), alpha, 1 - DELTA).certified


@pytest.mark.parametrize(
    ("alpha", "images", "most"),
    [
        (0.05, 1000, 40),
        (0.05, 5000, 229),
        (0.02, 2000, 31),
        (0.02, 5000, 86),
        (0.01, 1000, 5),
        (0.01, 5000, 40),
    ],
)
def test_so_many_harmed_images_are_allowed_and_not_one_more(alpha, images, most):
    assert certified_with(most, images, alpha)
    assert not certified_with(most + 1, images, alpha)


@pytest.mark.parametrize(("alpha", "least"), [(0.05, 45), (0.02, 114), (0.01, 230)])
def test_so_many_images_are_needed_even_without_harm(alpha, least):
    assert certified_with(0, least, alpha)
    assert not certified_with(0, least - 1, alpha)
    assert count_needed(0, 10, alpha, 1 - DELTA) == least


def test_the_last_threshold_before_the_first_failure_is_taken():
    scores = np.arange(1000.0)
    harmed = scores >= 500
    candidates = np.array([99.5, 499.5, 505.5, 540.5, 999.5])
    found = certify(scores, harmed, candidates, 0.02, 0.9)
    assert (found.threshold, found.harmful, found.tested) == (505.5, 6, 4)
    assert found.certified
    assert 0.006 < found.risk_bound < 0.02
    assert escalate(scores, found.threshold).sum() == 494


def test_where_nothing_can_be_certified_everything_is_escalated_and_it_says_how_many_would_do():
    found = certify(np.arange(20.0), np.zeros(20, bool), np.array([10.0, NEVER_ESCALATE]), 0.05, 0.9)
    assert (found.threshold, found.certified, found.tested) == (ALWAYS_ESCALATE, False, 1)
    assert found.needed_images == 45
    assert escalate(np.array([-1e300, 0.0]), found.threshold).all()
    hopeless = certify(np.zeros(100), np.ones(100, bool), np.array([1.0]), 0.05, 0.9)
    assert (hopeless.certified, hopeless.needed_images, hopeless.harmful) == (False, None, 100)


@pytest.mark.parametrize(
    ("harmful", "helped", "needed", "says"),
    [
        (0, None, 45, "about 57 calibration images would do"),
        (99, None, None, "more than 200,000 would be needed"),
        (100, None, None, "no number of images would do"),
        (120, 21, None, "more than 200,000 would be needed"),
        (120, 20, None, "no number of images would do"),
    ],
)
def test_no_number_of_images_would_do_only_at_the_limit_or_above(harmful, helped, needed, says):
    found = {"harmful": harmful, "helped": helped, "images": 5000, "alpha": 0.02, "needed_images": needed}
    assert describe_remedy(found, learned=1250) == says


def test_below_the_limit_enough_images_pass_though_the_search_ends_before_them():
    assert count_needed(99, 5000, 0.02, 1 - DELTA) is None
    assert binom.cdf(99 * 200, 5000 * 200, 0.02) <= DELTA


def test_an_image_without_a_score_is_escalated_and_so_never_harmed():
    scores = np.full(200, np.nan)
    found = certify(scores, np.ones(200, bool), np.array([0.0, NEVER_ESCALATE]), 0.05, 0.9)
    assert (found.certified, found.harmful) == (True, 0)
    assert found.threshold == NEVER_ESCALATE


def test_alpha_is_the_promise_and_the_bound_that_of_a_threshold_fixed_beforehand():
    fit = fit_metrics()
    fit["certificate"] = {
        "certified": 1,
        "alpha": 0.05,
        "confidence": 0.9,
        "images": 4000,
        "harmful": 180,
        "risk_bound": 0.048,
    }
    fit["evaluation"]["certified_risk"] = {"value": 0.039, "ci_low": 0.034, "ci_high": 0.044}
    assert judge_fit(fit)[-1].text == (
        "Certified: risk at most 0.05 at confidence 0.9 (180 harmed of 4,000 images; had this threshold been "
        "fixed beforehand, its bound would be 4.8 %); on the evaluation images 3.9 % "
        "(interval 3.4 % to 4.4 %)."
    )


def test_the_bound_is_the_exact_one():
    bound = risk_bound(13, 1000, 0.9)
    assert binom.cdf(13, 1000, bound) == pytest.approx(0.1)
    assert risk_bound(7, 7, 0.9) == 1.0


def test_candidates_rise_from_escalating_nearly_all_to_none():
    scores = np.random.default_rng(0).normal(size=5000)
    candidates = list_candidates(scores)
    assert (np.diff(candidates) > 0).all()
    assert escalate(scores, candidates[0]).mean() > 0.99
    assert candidates[-1] == NEVER_ESCALATE
    assert list_candidates(np.array([1.0, np.nan, 1.0])).tolist() == [1.0, NEVER_ESCALATE]


def test_what_learns_is_drawn_by_name_whatever_the_order():
    names = [f"val/{index}" for index in range(50)]
    chosen = set_apart(names, 0.2, 0)
    backwards = set_apart(names[::-1], 0.2, 0)
    assert chosen.sum() == 10
    assert backwards[::-1].tolist() == chosen.tolist()
    assert set_apart(names, 0.2, 1).tolist() != chosen.tolist()


def test_too_few_images_to_learn_from_are_an_error_that_says_how_many_do():
    assert set_apart([str(index) for index in range(10)], 0.2, 0).sum() == 2
    with pytest.raises(PipelineError, match="7 are too few; set data.calibration_images to 10 or more"):
        set_apart([str(index) for index in range(7)], 0.2, 0)


def true_risk(threshold):
    """Of scores uniform on 0..1 where staying low harms with probability 0.3 u^2."""
    return 0.1 * min(max(threshold, 0.0), 1.0) ** 3


def naive(scores, harmed, candidates, alpha):
    """What is usually done: the largest threshold whose risk on the sample is at most alpha."""
    share = np.array([(harmed & (scores <= candidate)).mean() for candidate in candidates])
    return candidates[np.flatnonzero(share <= alpha)[-1]]


@pytest.mark.parametrize("images", [500, 2000])
@pytest.mark.parametrize("alpha", [0.02, 0.05])
def test_the_promise_holds_against_a_known_truth_and_the_naive_rule_breaks_it(alpha, images):
    rng = np.random.default_rng(1)
    candidates = np.linspace(0.01, 1, 100)
    broken = {"certified": 0, "naive": 0}
    for _ in range(SIMULATIONS):
        scores = rng.random(images)
        harmed = rng.random(images) < 0.3 * scores**2
        broken["certified"] += (
            true_risk(certify(scores, harmed, candidates, alpha, 1 - DELTA).threshold) > alpha
        )
        broken["naive"] += true_risk(naive(scores, harmed, candidates, alpha)) > alpha
    assert broken["certified"] / SIMULATIONS <= DELTA + MARGIN
    assert broken["naive"] / SIMULATIONS > DELTA + MARGIN


def every_image(harmed, _low):
    return np.ones(len(harmed), dtype=bool)


LOW_AND_HARMED = BinaryRisk(
    lambda harmed, low: (low == 1) & (harmed == 1), every_image, higher_is_better=False
)
LOW = BinaryRisk(lambda _harmed, low: low == 1, every_image, higher_is_better=True)


def second_opinion(scores, harmed, candidates, alpha):
    """MAPIE's controller, told the same: what is predicted positive stays low, as much as may be."""
    return BinaryClassificationController(
        lambda scores: np.column_stack([scores, -scores]),
        LOW_AND_HARMED,
        alpha,
        confidence_level=1 - DELTA,
        best_predict_param_choice=LOW,
        list_predict_params=-candidates,
        fwer_method="fixed_sequence",
    ).calibrate(scores, harmed)


@pytest.mark.parametrize("images", [500, 2000])
@pytest.mark.parametrize("alpha", [0.02, 0.05, 0.1])
def test_mapie_certifies_exactly_the_same_thresholds(alpha, images):
    """Of a yes-or-no loss its p-value, the lesser of Hoeffding's and Bentkus's, is the exact binomial tail.

    Hoeffding's is never below that tail. Where n * (k / n) rounds above k, as for 7 of 100, it counts one
    harmed image too many; no k does so at these two numbers of images.
    """
    for seed in range(20):
        rng = np.random.default_rng(seed)
        candidates = list_candidates(rng.random(1000).round(3))
        scores = np.where(rng.random(images) < 0.02, np.nan, rng.random(images).round(3))
        harmed = rng.random(images) < scores**2
        ours = certify(scores, harmed, candidates, alpha, 1 - DELTA)
        theirs = second_opinion(scores, harmed, candidates, alpha)
        assert candidates[0] < ours.threshold < candidates[-1]
        assert (-theirs.valid_predict_params).tolist() == candidates[candidates <= ours.threshold].tolist()
        # Of thresholds that escalate the same images, each may name another.
        assert theirs.predict(scores).tolist() == (~escalate(scores, ours.threshold)).tolist()


@pytest.mark.parametrize(
    ("images", "harmed_share", "first"), [(113, 0, 0.0), (500, 0.5, 0.5), (2000, 1, 0.05)]
)
def test_mapie_certifies_nothing_either(images, harmed_share, first):
    rng = np.random.default_rng(0)
    scores, harmed = rng.random(images), rng.random(images) < harmed_share
    candidates = np.linspace(first, 1, 50)
    assert not certify(scores, harmed, candidates, 0.02, 1 - DELTA).certified
    with pytest.warns(UserWarning, match="No predict parameters were found"):
        theirs = second_opinion(scores, harmed, candidates, 0.02)
    assert theirs.best_predict_param is None
    assert theirs.valid_predict_params.tolist() == []


def test_mapie_certifies_all_as_soon_as_so_many_images_suffice():
    scores, harmed = np.random.default_rng(0).random(114), np.zeros(114, dtype=bool)
    candidates = np.linspace(0, 1, 50)
    assert certify(scores, harmed, candidates, 0.02, 1 - DELTA).threshold == 1
    with pytest.warns(UserWarning, match="All provided predict_params control the risk"):
        theirs = second_opinion(scores, harmed, candidates, 0.02)
    assert (-theirs.valid_predict_params).tolist() == candidates.tolist()
