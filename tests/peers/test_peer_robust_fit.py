"""examples/robust_fit.py: its fits are the minima of the losses' definitions, and what it prints and draws says so."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "examples"))
import robust_fit


@pytest.fixture(scope="module")
def tumours():
    """Features, targets, and the residuals of each fit in units of their spread."""
    x, y = robust_fit.design(*robust_fit.real())
    scale = robust_fit.spread(x, y)
    return x, y, scale, {name: (x @ w - y) / scale for name, (w, *_) in robust_fit.all_fits(x, y).items()}


@pytest.mark.parametrize(("name", "clip"), [("L2", np.inf), ("smooth L1", 1.0), ("Huber", 1.345)])
def test_no_feature_has_a_slope_left(tumours, name, clip):
    """At the minimum the losses' slopes, clipped residuals, are orthogonal to every feature: a mean below 1e-6."""
    x, _, _, residuals = tumours
    assert np.abs(np.clip(residuals[name], -clip, clip) @ x).max() <= 1e-6 * len(x)


def test_least_squares_are_those_of_lapack(tumours):
    x, y, scale, residuals = tumours
    wanted = (x @ np.linalg.lstsq(x, y)[0] - y) / scale
    assert np.abs(residuals["L2"] - wanted).max() <= 1e-6 * np.abs(wanted).max()


def test_least_absolute_values_are_those_of_linear_programming(tumours):
    x, y, scale, residuals = tumours
    assert np.abs(residuals["L1"]).mean() * scale <= (1 + 1e-4) * robust_fit.least_absolute(x, y)


def test_it_runs_and_draws_what_outliers_pull(monkeypatch, tmp_path, capsys):
    picture = tmp_path / "robust_fit.png"
    monkeypatch.setattr(sys, "argv", ["robust_fit.py", "--picture", str(picture)])
    robust_fit.main()
    rows = {}
    for part, *errors in filter(None, map(str.split, capsys.readouterr().out.splitlines())):
        if part.endswith("%"):
            rows[part] = dict(zip(robust_fit.LOSSES, map(float, errors), strict=True))
    assert list(rows) == [f"{part:.0%}" for part in robust_fit.PARTS]
    # With a tenth of the targets misread, squares are far off, and the others where they were.
    for name in ("L1", "smooth L1", "Huber"):
        assert rows["10%"][name] <= 1.5 * rows["0%"][name]
        assert rows["10%"]["L2"] >= 2 * rows["10%"][name]
    assert picture.read_bytes().startswith(b"\x89PNG")
