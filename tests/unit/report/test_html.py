"""The report's page, from the figures of a run."""

from dynens.report.console import number, signed


def test_undefined_figures_are_dashes() -> None:
    assert signed(0.00125) == "+0.0013"
    assert signed(-0.5) == "-0.5000"
    assert signed(None) == signed(float("nan")) == number(None) == "–"
