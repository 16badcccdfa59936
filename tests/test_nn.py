"""What the layers promise beyond the functions that they call."""

import numpy as np
import pytest

import fastreg
from fastreg import nn


def test_dropout_replays_its_last_forward():
    layer = nn.Dropout(0.3, seed=7)
    x, grad = np.ones((40, 5)), np.full((40, 5), 2.0)
    for offset in range(3):
        assert layer.offset == offset
        y = layer.forward(x)
        assert np.array_equal(y, fastreg.dropout(x, 0.3, seed=7, offset=offset))
        assert np.array_equal(layer.backward(grad), 2 * y)
        assert np.array_equal(layer.backward(grad), 2 * y)


def test_dropout_leaves_inference_alone_and_its_stream_too():
    x = np.arange(12.0)
    inverted, vanilla = nn.Dropout(0.25, seed=1).eval(), nn.Dropout(0.25, seed=1, mode="vanilla").eval()
    assert np.array_equal(inverted.forward(x), x)
    assert np.array_equal(inverted.backward(x), x)
    assert np.array_equal(vanilla.forward(x), 0.75 * x)
    assert np.array_equal(vanilla.backward(x), 0.75 * x)
    assert inverted.offset == vanilla.offset == 0
    assert inverted.train().training
    assert not np.array_equal(inverted.forward(x), x)


def test_a_forward_that_fails_draws_nothing():
    layer = nn.Dropout(0.5, seed=3, axis=1)
    with pytest.raises(ValueError, match="axis"):
        layer.forward(np.ones(3))
    assert layer.offset == 0
    with pytest.raises(RuntimeError, match="forward"):
        layer.backward(np.ones(3))


def test_dropout_stream_wraps():
    layer = nn.Dropout(seed=3)
    layer.load_state_dict({"seed": 3, "offset": 2**64 - 1})
    layer.forward(np.ones(3))
    assert layer.offset == 0


def test_seeds_come_from_the_generator():
    """SPEC 7: None, a seed or a Generator; a Generator is advanced."""
    assert nn.Dropout(rng=5).seed == nn.Dropout(rng=np.random.default_rng(5)).seed
    assert nn.Dropout().seed != nn.Dropout().seed
    rng = np.random.default_rng(5)
    assert nn.Dropout(rng=rng).seed != nn.Dropout(rng=rng).seed
    with pytest.raises(ValueError, match="rng"):
        nn.Dropout(seed=1, rng=1)


@pytest.mark.parametrize(
    ("bad", "kind", "name"),
    [({"p": 2}, ValueError, "p"), ({"seed": -1}, ValueError, "seed"), ({"mode": "x"}, ValueError, "mode")],
)
def test_bad_layers_are_refused(bad, kind, name):
    with pytest.raises(kind, match=name):
        nn.Dropout(**bad)


def test_a_run_can_be_taken_up_again():
    x = np.ones(100)
    layer, other = nn.Dropout(seed=3), nn.Dropout(seed=4)
    layer.forward(x)
    other.load_state_dict(layer.state_dict())
    assert np.array_equal(other.forward(x), layer.forward(x))


@pytest.mark.parametrize("bad", [{}, {"seed": 1}, {"seed": 1, "offset": 1.5}, {"seed": 1, "offset": 1, "p": 1}])
def test_bad_state_changes_nothing(bad):
    layer = nn.Dropout(seed=3)
    with pytest.raises(ValueError, match="state"):
        layer.load_state_dict(bad)
    assert layer.state_dict() == {"seed": 3, "offset": 0}


def test_gradient_of_another_shape_is_refused():
    layer = nn.Dropout(seed=3)
    layer.forward(np.ones((2, 3)))
    with pytest.raises(ValueError, match="grad"):
        layer.backward(np.ones(6))


def test_dropconnect_replays_its_last_forward():
    layer = nn.DropConnect(6, 4, 0.3, seed=9, rng=1, dtype=np.float64)
    rng = np.random.default_rng(2)
    x, grad = rng.standard_normal((5, 6)), rng.standard_normal((5, 4))
    for offset in range(2):
        weight = layer.params["weight"] * fastreg.dropout_mask((4, 6), 0.3, seed=9, offset=offset) / 0.7
        np.testing.assert_allclose(layer.forward(x), x @ weight.T + layer.params["bias"], rtol=1e-13)
        np.testing.assert_allclose(layer.backward(grad), grad @ weight, rtol=1e-13, atol=1e-13)
        assert np.array_equal(layer.grads["weight"] == 0, weight == 0)
        np.testing.assert_allclose(layer.grads["bias"], grad.sum(0), rtol=1e-13)
    plain = layer.eval().forward(x)
    np.testing.assert_allclose(plain, x @ layer.params["weight"].T + layer.params["bias"], rtol=1e-13)
    np.testing.assert_allclose(layer.backward(grad), grad @ layer.params["weight"], rtol=1e-13, atol=1e-13)
    assert layer.offset == 2
    assert "bias" not in nn.DropConnect(3, 2, bias=False, rng=0).params
    with pytest.raises(TypeError, match="dtype"):
        nn.DropConnect(3, 2, dtype=int)


NORMS = (
    (lambda dtype: nn.BatchNorm(4, dtype=dtype), (6, 4, 5)),
    (lambda dtype: nn.BatchNorm(5, axis=-1, activation="relu", dtype=dtype), (6, 4, 5)),
    (lambda dtype: nn.LayerNorm((4, 5), dtype=dtype), (6, 4, 5)),
    (lambda dtype: nn.RMSNorm(5, dtype=dtype), (6, 4, 5)),
    (lambda dtype: nn.GroupNorm(2, 4, dtype=dtype), (6, 4, 5)),
    (lambda dtype: nn.InstanceNorm(4, track_running_stats=True, dtype=dtype), (6, 4, 5)),
)


@pytest.mark.parametrize(("make", "shape"), NORMS)
def test_norm_layers_train_by_their_own_gradients(make, shape):
    """The gradients that `backward` leaves are those of central differences, in training and at inference."""
    rng = np.random.default_rng(1)
    layer, x, grad = make(np.float64), rng.standard_normal(shape), rng.standard_normal(shape)
    for param in layer.params.values():
        param += 0.3 * rng.standard_normal(param.shape)
    for mode in (layer.train, layer.eval):
        mode()
        layer.forward(x)
        gradients = [layer.backward(grad), *layer.grads.values()]
        assert list(layer.grads) == list(layer.params)
        for array, gradient in zip((x, *layer.params.values()), gradients, strict=True):
            for index in list(np.ndindex(array.shape))[::7]:
                kept, sides = array[index], []
                for step in (1e-5, -1e-5):
                    array[index] = kept + step
                    before = layer.state_dict()
                    sides.append((layer.forward(x) * grad).sum())
                    layer.load_state_dict(before)  # running statistics have moved
                array[index] = kept
                assert abs((sides[0] - sides[1]) / 2e-5 - gradient[index]) < 1e-7


@pytest.mark.parametrize(("make", "shape"), NORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_norm_layers_are_their_functions_and_keep_their_state(make, shape, dtype):
    x = np.asarray(np.random.default_rng(2).standard_normal(shape) + 1, dtype)
    layer, other = make(dtype), make(dtype)
    y = layer.forward(x)
    assert y.dtype == dtype
    if layer.buffers:
        assert not np.array_equal(layer.running_mean, other.running_mean)
    for param in layer.params.values():
        param += 1
    other.load_state_dict(layer.state_dict())
    assert np.array_equal(layer.eval().forward(x), other.eval().forward(x))
    with pytest.raises(RuntimeError, match="forward"):
        make(dtype).backward(x)


def test_norm_layers_without_parameters_and_bad_ones():
    x = np.random.default_rng(3).standard_normal((6, 4, 5))
    for layer in (
        nn.BatchNorm(4, affine=False, dtype=np.float64),
        nn.LayerNorm(5, affine=False, dtype=np.float64),
        nn.RMSNorm(5, affine=False, dtype=np.float64),
        nn.GroupNorm(2, 4, affine=False, dtype=np.float64),
        nn.InstanceNorm(4, affine=False, dtype=np.float64),
    ):
        layer.forward(x)
        assert layer.backward(x).shape == x.shape
        assert layer.params == layer.grads == {}
    with pytest.raises(ValueError, match="num_groups"):
        nn.GroupNorm(3, 4)
    for affine in (True, False):
        with pytest.raises(TypeError, match="dtype"):
            nn.LayerNorm(4, affine=affine, dtype=np.int32)
    with pytest.raises(ValueError, match=r"eval mode.*layer_norm.*group_norm"):
        nn.BatchNorm(4).forward(np.ones((1, 4), np.float32))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.3, seed=7, mode="vanilla", axis=1),
        nn.DropConnect(3, 2, 0.25, bias=False, seed=5),
        nn.BatchNorm(4, eps=1e-3, momentum=0.5, affine=False, axis=-1, activation="relu", dtype=np.float64),
        nn.LayerNorm((2, 3), affine=False),
        nn.RMSNorm(3, eps=1e-3),
        nn.GroupNorm(2, 4, eps=1e-3),
        nn.InstanceNorm(4, affine=True),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_repr_evaluates_back(layer):
    again = eval(repr(layer), vars(nn) | {"np": np})
    assert type(again) is type(layer)
    assert repr(again) == repr(layer)


def test_a_layer_is_a_function():
    x = np.arange(6.0).reshape(2, 3)
    layer = nn.LayerNorm(3, dtype=np.float64)
    assert np.array_equal(layer(x), layer.forward(x))
    for method in (nn.Layer().forward, nn.Layer().backward):
        with pytest.raises(NotImplementedError):
            method(x)


def test_a_state_of_another_shape_is_refused():
    layer = nn.LayerNorm(3)
    for bad in (np.zeros(4, np.float32), np.zeros(3)):
        with pytest.raises(ValueError, match=r"state: got weight of shape .* are needed"):
            layer.load_state_dict({"weight": bad, "bias": np.zeros(3, np.float32)})
    assert np.array_equal(layer.params["weight"], np.ones(3))
