"""Lines of a drawing lie where the numbers say."""

import re

import numpy as np

from embedsmith.pages.charts import Point, line_svg


def places(drawing: str, pattern: str) -> np.ndarray:
    (found,) = re.findall(pattern, drawing)
    return np.array([[float(number) for number in place.split(",")] for place in found.split()])


def test_a_line_goes_through_the_means_and_its_band_is_a_deviation_wide():
    points = [Point(0.8, 0.5, 0.1, [0.4, 0.6]), Point(0.9, 0.7, 0.0, [0.7, 0.7]), Point(1.2, 0.6, 0.2, [0.4, 0.8])]
    drawing = line_svg("<title>", points, x_label="ratio", y_label="score", mark=0.5)
    line = places(drawing, r'<polyline class="line" points="([^"]+)"')
    np.testing.assert_allclose(np.diff(line[:, 0]), np.diff(line[:, 0]).sum() * np.array([0.25, 0.75]), atol=0.2)
    # Up is less: a tenth of the score is so many units.
    tenth = line[0, 1] - line[2, 1]
    assert tenth > 5
    np.testing.assert_allclose(line[0, 1] - line[1, 1], 2 * tenth, atol=0.3)
    band = places(drawing, r'<polygon class="band" points="([^"]+)"')
    np.testing.assert_allclose(band[:3, 1] - line[:, 1], [-tenth, 0, -2 * tenth], atol=0.3)
    np.testing.assert_allclose(band[:2:-1, 1] - line[:, 1], [tenth, 0, 2 * tenth], atol=0.3)
    (mark,) = re.findall(r'class="mark" .*? y1="([\d.]+)"', drawing)
    assert float(mark) == line[0, 1]
    assert drawing.count('class="seed"') == 6
    assert "&lt;title&gt;" in drawing


def test_a_flat_line_of_single_values_has_no_band():
    drawing = line_svg("flat", [Point(1, 0.5, 0.0), Point(2, 0.5, 0.0)], x_label="x", y_label="y")
    line = places(drawing, r'<polyline class="line" points="([^"]+)"')
    assert line[0, 1] == line[1, 1]
    assert "band" not in drawing
