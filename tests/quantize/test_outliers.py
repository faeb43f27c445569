"""The outlier rules, at their thresholds."""

import numpy as np
import pytest
from scipy.stats import norm

from qwd.quantize import outliers
from qwd.quantize.outliers import Statistics
from qwd.registry import OUTLIER_RULES

OF = Statistics(mean=1.0, std=2.0, q1=-0.5, median=0.5, q3=1.5, mad=1.0)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("sigma>3", -5.0, 7.0),
        ("sigma>4", -7.0, 9.0),
        ("sigma>6", -11.0, 13.0),
        ("iqr>1.5", -3.5, 4.5),
    ],
)
def test_the_threshold_itself_is_no_outlier(name, low, high):
    test = OUTLIER_RULES.get(name)(OF)
    inside = np.array([low, high, 0.0, 1.0])
    outside = np.array([low - 1e-12, high + 1e-12, -1e9, 1e9])
    assert not test(inside).any()
    assert test(outside).all()


def test_mad():
    test = outliers.mad(OF)
    assert test is not None
    reach = 3.5 / 0.6745
    distances = np.array([[-reach * 1.0001, -reach * 0.9999], [reach * 0.9999, reach * 1.0001]])
    np.testing.assert_array_equal(test(0.5 + distances), [[True, False], [False, True]])


def test_no_mad_no_threshold():
    of = Statistics(mean=0.1, std=0.5, q1=0.0, median=0.0, q3=0.0, mad=0.0)
    assert outliers.mad(of) is None
    assert outliers.iqr(of)(np.array([0.0, 1e-9, -1e-9])).tolist() == [False, True, True]


def test_the_registry_has_these_rules():
    builtin = ["sigma>3", "sigma>4", "sigma>6", "iqr>1.5", "mad>3.5"]
    assert [n for n in OUTLIER_RULES.names() if n in builtin] == builtin


def test_rates_of_the_normal_distribution():
    # The figures in the module's docstring.
    def per_million(z: float) -> float:
        return 2e6 * float(norm.sf(z))

    assert [round(per_million(k)) for k in (3, 4)] == [2700, 63]
    assert round(per_million(6), 3) == 0.002
    q3 = float(norm.ppf(0.75))
    assert round(per_million(q3 + 1.5 * 2 * q3)) == 6977
    assert round(per_million(3.5 / 0.6745 * q3)) == 465


def test_tails_are_true_from_some_distance_on():
    w = np.linspace(-12, 14, 1001)
    for name in ("sigma>3", "sigma>4", "sigma>6", "iqr>1.5", "mad>3.5"):
        test = OUTLIER_RULES.get(name)(OF)
        assert isinstance(test, outliers.Tails)
        found = test(w)
        left, right = found[w <= test.centre], found[w >= test.centre]
        assert not test(np.array([test.centre])).any()
        assert (np.diff(left.astype(int)) <= 0).all()
        assert (np.diff(right.astype(int)) >= 0).all()
        assert found.any()
