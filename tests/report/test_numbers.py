"""How numbers look."""

import pytest

from qwd.report.figures import Spread
from qwd.report.render import numbers


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (numbers.percent(0.975), "97.50 %"),
        (numbers.percent(None), "-"),
        (numbers.points(-0.001), "0.00 pp"),
        (numbers.points(-0.25), "-0.25 pp"),
        (numbers.digits(0.896), "0.8960"),
        (numbers.digits(1234.0), "1234"),
        (numbers.digits(123456.0), "1.235e+05"),
        (numbers.digits(0.0), "0.000"),
        (numbers.decibel(41.2), "41.20"),
        (numbers.count(1234567), "1,234,567"),
        (numbers.decay(1e-4), "1e-4"),
        (numbers.decay(1e-5), "1e-5"),
        (numbers.decay(5e-4), "5e-4"),
        (numbers.decay(2.5e-3), "2.5e-3"),
        (numbers.decay(0.05), "0.05"),
        (numbers.decay(0.1), "0.1"),
        (numbers.decay(0.0), "0"),
        (numbers.decay(None), "-"),
        (numbers.figure(41.2, "dB"), "41.20 dB"),
        (numbers.figure(None, "dB"), "-"),
        (numbers.figure(0.5, "pp"), "0.50 pp"),
        (numbers.change(0.975, 0.97, "fraction"), "-0.5 pp"),
        (numbers.change(0.975, 0.974999, "fraction"), "-0.0001 pp"),
        (numbers.change(0.5, 0.4, "pp"), "-0.1 pp"),
        (numbers.change(40.0, 41.5, "dB"), "+1.5 dB"),
        (numbers.change(1000, 1100, "count"), "+100 (+10 %)"),
        (numbers.change(0.0, 0.5, "number"), "+0.5"),
        (numbers.change(0.8, 0.4, "number"), "-0.4 (-50 %)"),
        (numbers.change(-1.7e308, 1.7e308, "number"), "+inf (+inf %)"),
        (numbers.change(1.0, 1.0, "number"), "0"),
        (numbers.spread(Spread(mean=0.975, std=0.0012), "fraction"), "97.50 ± 0.12 %"),
        (numbers.spread(Spread(mean=0.975, std=None), "fraction"), "97.50 %"),
        (numbers.spread(Spread(mean=2.5, std=0.123), "number"), "2.500 ± 0.123"),
        (numbers.spread(Spread(mean=41.2, std=0.3), "dB"), "41.20 ± 0.30 dB"),
        (numbers.spread(Spread(mean=3, std=1.0), "count"), "3.000 ± 1.000"),
        (numbers.spread(None, "dB"), "-"),
    ],
)
def test_numbers(shown: str, expected: str):
    assert shown == expected
