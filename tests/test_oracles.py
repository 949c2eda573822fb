import polars as pl
import pytest

from pipeline.errors import PipelineError
from pipeline.oracles import ORACLES

# Four images: both right, only high right, only low right, both wrong with different answers.
TABLE = pl.DataFrame(
    {
        "delta": [0.1, 0.9, 0.4, 0.7],
        "agree": [True, False, False, False],
        "low_correct": [True, False, True, False],
        "high_correct": [True, True, False, False],
    }
)


@pytest.mark.parametrize(
    ("name", "values"),
    [("delta", [0.1, 0.9, 0.4, 0.7]), ("disagreement", [0, 1, 1, 1]), ("benefit", [0, 1, 0, 0])],
)
def test_oracles_by_hand(name, values):
    assert ORACLES[name](TABLE).tolist() == values


def test_benefit_needs_labels():
    unknown = TABLE.with_columns(low_correct=pl.lit(None, pl.Boolean))
    with pytest.raises(PipelineError, match="benefit needs labels that the model knows"):
        ORACLES["benefit"](unknown)
