"""The report's page, from the figures of a run."""

from importlib import resources

import jinja2

from dynens.report.console import number, share, signed


def test_undefined_figures_are_dashes() -> None:
    assert signed(0.00125) == "+0.0013"
    assert signed(-0.5) == "-0.5000"
    assert signed(None) == signed(float("nan")) == number(None) == "–"


def test_the_page_formats_no_figure_that_may_be_undefined_by_itself() -> None:
    text = resources.files("dynens.report").joinpath("template.html").read_text("utf-8")
    assert '"%+' not in text  # `signed` knows undefined ones
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters.update(number=number, share=share, signed=signed)
    environment.from_string(text)
