import numpy as np
import pytest

from pipeline.betting import _bets, certify_drop, is_below, mean_bound
from pipeline.policy import ALWAYS_ESCALATE, NEVER_ESCALATE, escalate
from tests.test_certify import DELTA, MARGIN, SIMULATIONS


def draw_losses(scores, rng):
    """Staying low harms with probability 0.3 u^2 and helps with half of it."""
    chance = rng.random(len(scores))
    return np.where(chance < 0.3 * scores**2, 1.0, np.where(chance > 1 - 0.15 * scores**2, -1.0, 0.0))


def true_drop(threshold):
    """Of scores uniform on 0..1: the integral of 0.15 u^2."""
    return 0.05 * min(max(threshold, 0.0), 1.0) ** 3


def naive(scores, losses, candidates, alpha):
    """What is usually done: the largest threshold that loses at most alpha on the sample."""
    lost = np.array([losses[scores <= candidate].sum() / len(scores) for candidate in candidates])
    return candidates[np.flatnonzero(lost <= alpha)[-1]]


@pytest.mark.parametrize("images", [1000, 3000])
@pytest.mark.parametrize("alpha", [0.01, 0.02])
def test_the_promise_holds_against_a_known_truth_and_the_naive_rule_breaks_it(alpha, images):
    rng = np.random.default_rng(1)
    candidates = np.linspace(0.02, 1, 50)
    broken = {"certified": 0, "naive": 0}
    useful = 0
    for _ in range(SIMULATIONS):
        scores = rng.random(images)
        losses = draw_losses(scores, rng)
        certificate = certify_drop(scores, losses, candidates, alpha, 1 - DELTA)
        useful += certificate.certified
        broken["certified"] += true_drop(certificate.threshold) > alpha
        broken["naive"] += true_drop(naive(scores, losses, candidates, alpha)) > alpha
    assert broken["certified"] / SIMULATIONS <= DELTA + MARGIN
    assert broken["naive"] / SIMULATIONS > DELTA + MARGIN
    assert useful / SIMULATIONS > 0.95


def test_a_mean_at_the_limit_is_called_below_it_as_rarely_as_promised():
    """Losses of 1 and -1 whose mean is exactly the limit: the hardest case that must not pass."""
    rng = np.random.default_rng(2)
    limit = 0.01
    passed = sum(
        is_below(rng.choice([1.0, -1.0, 0.0], 2000, p=[0.06, 0.05, 0.89]), limit, 1 - DELTA)
        for _ in range(SIMULATIONS)
    )
    assert passed / SIMULATIONS <= DELTA + MARGIN


def test_a_bet_sees_nothing_of_its_own_image_nor_of_those_after():
    values = np.random.default_rng(0).random(50)
    changed = values.copy()
    changed[30:] = 1 - changed[30:]
    before, after = (_bets(shares, 0.505, 0.9) for shares in (values, changed))
    assert before[:31].tolist() == after[:31].tolist()
    assert before[31] != after[31]


@pytest.mark.parametrize(
    ("limit", "bet", "left"), [(-0.98, 0.7576, 0.25), (0.0, 1.5, 0.25), (0.98, 4.2919, 0.9571)]
)
def test_one_loss_leaves_a_quarter_of_the_capital_or_more(limit, bet, left):
    """The bet of a single image is sqrt(2 ln 10 / 0.25) = 4.2919, or less where that much could ruin."""
    share = (limit + 1) / 2
    found = _bets(np.ones(1), share, 0.9)
    assert found == pytest.approx([bet], abs=1e-4)
    assert 1 - found * (1 - share) == pytest.approx([left], abs=1e-4)


def test_what_was_proved_once_stays_proved():
    gains_first = np.repeat([-1.0, 1.0], 10)
    assert is_below(gains_first, 0.05, 0.9)
    assert not is_below(gains_first[::-1], 0.05, 0.9)


def test_the_last_threshold_before_the_first_failure_is_taken():
    scores = np.tile(np.arange(100.0), 40)
    losses = np.where(scores >= 50, 1.0, 0.0)
    candidates = np.array([9.5, 49.5, 50.5, 52.5, 99.5])
    found = certify_drop(scores, losses, candidates, 0.02, 0.9)
    assert (found.threshold, found.harmful, found.helped, found.tested) == (50.5, 40, 0, 4)
    assert 0.01 < found.risk_bound <= 0.02


def test_gains_pay_for_losses():
    scores = np.zeros(2000)
    losses = np.tile([1.0, -1.0, 0.0, 0.0], 500)
    found = certify_drop(scores, losses, np.array([1.0]), 0.05, 0.9)
    assert (found.certified, found.harmful, found.helped) == (True, 500, 500)
    assert not certify_drop(scores, np.abs(losses), np.array([1.0]), 0.05, 0.9).certified


def test_the_bound_lies_above_the_mean_and_is_itself_proved():
    values = np.random.default_rng(0).choice([1.0, -1.0, 0.0], 4000, p=[0.02, 0.01, 0.97])
    bound = mean_bound(values, 0.9)
    assert values.mean() < bound < values.mean() + 0.01
    assert is_below(values, bound, 0.9)
    assert not is_below(values, bound - 1e-4, 0.9)


def test_where_nothing_can_be_certified_everything_is_escalated_and_it_says_how_many_would_do():
    found = certify_drop(np.zeros(20), np.zeros(20), np.array([1.0]), 0.05, 0.9)
    assert (found.threshold, found.certified, found.risk_bound) == (ALWAYS_ESCALATE, False, 0.0)
    assert certify_drop(np.zeros(n := found.needed_images), np.zeros(n), np.array([1.0]), 0.05, 0.9).certified
    assert not certify_drop(np.zeros(n - 1), np.zeros(n - 1), np.array([1.0]), 0.05, 0.9).certified
    hopeless = certify_drop(np.zeros(50), np.ones(50), np.array([1.0]), 0.05, 0.9)
    assert (hopeless.certified, hopeless.needed_images, hopeless.harmful) == (False, None, 50)
    assert escalate(np.zeros(1), hopeless.threshold).all()


def test_an_image_without_a_score_is_escalated_and_so_loses_nothing():
    found = certify_drop(np.full(500, np.nan), np.ones(500), np.array([0.0, NEVER_ESCALATE]), 0.05, 0.9)
    assert (found.certified, found.harmful, found.threshold) == (True, 0, NEVER_ESCALATE)
