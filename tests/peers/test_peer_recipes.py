"""The guides' recipes with other packages, and what they promise: no copies."""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import check_estimator
from test_docs import PAGES, blocks

import fastreg
from fastreg import optim, penalties

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "examples"))  # an estimator has to be found by pickle


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, peers=True)])
def test_page_examples(page):
    for block in blocks(page, peers=True):
        exec(compile(block, page, "exec"), {})


@pytest.mark.parametrize("make", [lambda x: torch.from_numpy(x.copy()), jnp.asarray], ids=["torch", "jax"])
@pytest.mark.parametrize(
    "call",
    [
        lambda x, **out: fastreg.soft_threshold(x, 0.5, **out),
        lambda x, **out: fastreg.dropout(x, 0.3, seed=1, **out),
        lambda x, **out: fastreg.softmax(x, **out),
        lambda x, **out: fastreg.layer_norm(x, 64, **out),
        lambda x, **out: fastreg.smooth_l1_loss(x, x, reduction="none", **out),
        lambda x, **out: fastreg.norm(x, axis=1),
    ],
)
def test_arrays_of_others_go_in(make, call):
    x = np.random.default_rng(0).standard_normal((32, 64), np.float32)
    assert np.array_equal(call(make(x)), call(x))


def test_arrays_of_others_are_not_copied():
    """NumPy's view of each is the package's own memory, and it is what fastreg reads."""
    x = torch.zeros(1000)
    assert np.asarray(x).ctypes.data == x.data_ptr()
    y = jnp.zeros(1000)
    assert np.asarray(y).ctypes.data == y.unsafe_buffer_pointer()
    # A result put into a torch tensor's memory is seen by torch.
    fastreg.soft_threshold(torch.full((1000,), 2.0), 0.5, out=x.numpy())
    assert (x == 1.5).all()


def test_nothing_of_the_size_of_the_input_is_allocated():
    import tracemalloc

    for x in (torch.ones(1 << 20), jnp.ones(1 << 20)):
        out = np.empty(1 << 20, np.float32)
        fastreg.soft_threshold(x, 0.5, out=out)
        tracemalloc.start()
        fastreg.soft_threshold(x, 0.5, out=out)
        fastreg.norm(x)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1 << 18


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.Adagrad])
def test_a_step_on_torch_parameters_shares_memory(make):
    parameter = torch.nn.Parameter(torch.ones(50, 7))
    pointer, before = parameter.data_ptr(), parameter.detach().clone()
    parameter.pow(2).sum().backward()
    make([parameter.detach().numpy()], lr=0.1).step([parameter.grad])
    assert parameter.data_ptr() == pointer
    assert not torch.equal(parameter.detach(), before)


def test_the_estimator_is_one():
    from sklearn_estimator import ProximalRegression

    for penalty in (None, penalties.L2(0.1), penalties.L0(0.01)):
        check_estimator(ProximalRegression(penalty), on_skip=None)
