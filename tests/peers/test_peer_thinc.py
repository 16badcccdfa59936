"""thinc finds the backend by the entry point of an installed fastreg; what it takes over is what NumpyOps computes."""

import sys
from pathlib import Path

import numpy as np
import pytest
from thinc.api import Adam, NumpyOps, fix_random_seed, get_ops

import fastreg.thinc_ops

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "examples"))


@pytest.fixture
def ops():
    found = get_ops("fastreg")
    assert type(found) is fastreg.thinc_ops.FastregOps
    return found


def test_the_mask(ops):
    fix_random_seed(3)
    mask = ops.get_dropout_mask((400, 500), 0.2)
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {np.float32(0), np.float32(1.25)}
    assert abs(np.mean(mask == 0) - 0.2) < 5 * np.sqrt(0.2 * 0.8 / mask.size)
    fix_random_seed(3)
    assert np.array_equal(ops.get_dropout_mask((400, 500), 0.2), mask)
    assert not np.array_equal(ops.get_dropout_mask((400, 500), 0.2), mask)
    assert np.array_equal(ops.get_dropout_mask((2, 3), None), np.ones((2, 3)))
    assert not ops.get_dropout_mask((2, 3), 1.0).any()


def test_clipping(ops):
    rng = np.random.default_rng(0)
    gradient = rng.standard_normal((30, 20), np.float32)
    for threshold in (1.0, 1e6):
        ours, theirs = gradient.copy(), gradient.copy()
        assert ops.clip_gradient(ours, threshold) is ours
        np.testing.assert_allclose(ours, NumpyOps().clip_gradient(theirs, threshold), rtol=4 * 2**-24)


@pytest.mark.parametrize("options", [{}, {"L2": 0.01}, {"L2": 0.01, "L2_is_weight_decay": False}, {"grad_clip": 0.5}])
def test_adam_is_thincs(options):
    rng = np.random.default_rng(1)
    start = rng.standard_normal((30, 20), np.float32)
    ours, theirs = start.copy(), start.copy()
    adams = fastreg.thinc_ops.Adam(0.01, **options), Adam(0.01, **options)
    for _ in range(20):
        gradient = rng.standard_normal((30, 20), np.float32)
        ours, left = adams[0]((0, "w"), ours, gradient.copy())
        theirs, _ = adams[1]((0, "w"), theirs, gradient.copy())
        assert not left.any()
        for adam in adams:
            adam.step_schedules()
    assert np.abs(ours - start).max() > 0.05
    # Some ten roundings a step, of numbers about 1, and steps of 0.01.
    np.testing.assert_allclose(ours, theirs, atol=20 * 4 * 2**-24)


def test_a_model_trains(capsys):
    import thinc_ops

    results = thinc_ops.main()
    assert all(right > 0.9 for _, right in results.values()), capsys.readouterr().out
