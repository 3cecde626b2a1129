from math import isclose

from geo import kilometres


def test_a_quarter_of_the_equator():
    assert isclose(kilometres((0.0, 0.0), (0.0, 90.0)), 10007.5, abs_tol=0.1)
