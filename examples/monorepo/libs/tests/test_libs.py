from libs.billing.invoice import total
from libs.features.trend import next_value
from libs.limits.plausible import plausible
from libs.reporting.render import headline


def test_a_straight_line_goes_on():
    assert next_value([10, 12, 14]) == 16.0


def test_a_count_beyond_the_limits_is_not_plausible():
    assert plausible(2000)
    assert not plausible(2001)
    assert not plausible(-1)


def test_the_headline_names_the_busiest_station():
    assert headline({"a": 1.0, "b": 2.0}).endswith(" tomorrow: b, 2.0 rides")


def test_an_invoice_is_in_whole_currency():
    assert total(rides=3, cents_each=150) == "4.50"
