import numpy as np
import pytest

from pipeline.answers import Answers
from pipeline.rivals import summarise_rivals

NOBODY = np.zeros(4, dtype=bool)
LOW = Answers(np.array([1, 1, 1, 1]), NOBODY)
HIGH = Answers(np.array([1, 2, 3, 1]), NOBODY)
ORACLE = np.array([0.1, 0.9, 0.5, 0.5])


def test_rivals_by_hand():
    truth = np.array([1, 2, 1, 0])
    found = summarise_rivals(LOW, HIGH, 2, ORACLE, truth)
    # Low agrees on 2 of 4; half of the rest comes with half of the images.
    assert found["random"] == pytest.approx({"escalation_rate": 0.5, "agreement": 0.75, "accuracy": 0.5})
    # Row 1 and one of the equal rows 2 and 3: row 2 agrees then, but low had been right on it.
    assert found["oracle"] == {"escalation_rate": 0.5, "agreement": 0.875, "accuracy": 0.625}


def test_without_known_classes_there_is_no_accuracy():
    found = summarise_rivals(LOW, HIGH, 0, ORACLE, None)
    assert found["oracle"] == {"escalation_rate": 0.0, "agreement": 0.5}
    assert found["random"] == {"escalation_rate": 0.0, "agreement": 0.5}
