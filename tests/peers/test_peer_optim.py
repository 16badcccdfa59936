"""The optimisers beside torch.optim itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_optim
import trajectories

from fastreg import optim

RECORD = json.loads((Path(__file__).parent.parent / "data/torch_optim.json").read_text())


@pytest.mark.parametrize(("name", "options"), trajectories.RUNS, ids=str)
def test_fifty_steps_are_those_of_torch(name, options):
    params = trajectories.tensors(0)
    optimiser = getattr(optim, name)(params, **options)
    ours = trajectories.run(params, optimiser.step, optimiser.param_groups)
    for a, b in zip(ours, torch_optim.trajectory(name, options), strict=True):
        assert np.allclose(a, b, rtol=1e-12, atol=0)


def test_the_record_is_of_this_torch():
    """What `make test` compares with is what this torch does; record_torch_optim.py writes it anew."""
    assert len(RECORD["trajectories"]) == len(trajectories.RUNS)
    for (name, options), of in zip(trajectories.RUNS, RECORD["trajectories"], strict=True):
        first, last = torch_optim.trajectory(name, options)
        assert np.allclose(of["first"], first, rtol=1e-14, atol=0)
        assert np.allclose(of["last"], last, rtol=1e-13, atol=0)


def test_a_tensor_of_torch_is_a_parameter():
    """With numbers of few bits: torch fuses multiplications and additions."""
    p, g = torch.ones(3, 4), torch.arange(12.0).reshape(3, 4)
    twin = p.clone().requires_grad_()
    twin.grad = g.clone()
    optim.SGD([p.numpy()], lr=0.125, momentum=0.5).step([g])
    torch.optim.SGD([twin], lr=0.125, momentum=0.5).step()
    assert torch.equal(p, twin.detach())
