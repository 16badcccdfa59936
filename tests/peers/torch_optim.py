"""torch.optim's side of the comparison."""

import torch
import trajectories


def trajectory(name, options):
    params = [torch.tensor(p, requires_grad=True) for p in trajectories.tensors(0)]
    optimiser = getattr(torch.optim, name)(params, **options)

    def step(grads):
        for p, g in zip(params, grads, strict=True):
            p.grad = torch.tensor(g)
        optimiser.step()

    views = [p.detach().numpy() for p in params]
    return list(trajectories.run(views, step, optimiser.param_groups))


def defaults(name):
    return {k: v for k, v in getattr(torch.optim, name)([torch.zeros(1)]).param_groups[0].items() if k != "params"}


def clipped(grads, max_norm):
    """The norm, and the gradients after it."""
    tensors = [torch.zeros(g.shape, dtype=torch.float64) for g in grads]
    for t, g in zip(tensors, grads, strict=True):
        t.grad = torch.tensor(g)
    return float(torch.nn.utils.clip_grad_norm_(tensors, max_norm)), [t.grad.numpy() for t in tensors]
