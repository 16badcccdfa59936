"""fastreg in plain NumPy: the same names, each written as its formula.

This is the definition that the compiled functions are tested against, and the place to look up
what one of them computes. It is never a fallback: it checks no argument, and for f32 arrays it
computes in float64 and rounds once at the end, so that its own rounding does not count.
"""

# A module that has the name of a function (dropout, norm) comes before the function does: importing
# a submodule binds its name here, and the function must be bound last.
from .dropout import dropout, dropout_backward, dropout_mask
from .losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    l1_loss,
    log_softmax,
    log_softmax_backward,
    mse_loss,
    sigmoid,
    sigmoid_backward,
    smooth_l1_loss,
    softmax,
    softmax_backward,
)
from .norm import batch_norm, batch_norm_backward
from .optim import (
    adagrad_step,
    adam_step,
    ftrl_init_z,
    ftrl_step,
    ftrl_step_sparse,
    rmsprop_step,
    sgd_step,
)
from .prox import (
    hard_threshold,
    project_box,
    project_l1_ball,
    project_l2_ball,
    project_linf_ball,
    project_simplex,
    prox_elastic_net,
    prox_group_lasso,
    prox_l0,
    prox_l1,
    prox_l2,
    prox_linf,
    prox_mcp,
    prox_nuclear,
    prox_scad,
    prox_sparse_group_lasso,
    prox_sq_l2,
    prox_tv1d,
    soft_threshold,
)

__all__ = [
    "adagrad_step",
    "adam_step",
    "batch_norm",
    "batch_norm_backward",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "dropout",
    "dropout_backward",
    "dropout_mask",
    "ftrl_init_z",
    "ftrl_step",
    "ftrl_step_sparse",
    "hard_threshold",
    "huber_loss",
    "l1_loss",
    "log_softmax",
    "log_softmax_backward",
    "mse_loss",
    "project_box",
    "project_l1_ball",
    "project_l2_ball",
    "project_linf_ball",
    "project_simplex",
    "prox_elastic_net",
    "prox_group_lasso",
    "prox_l0",
    "prox_l1",
    "prox_l2",
    "prox_linf",
    "prox_mcp",
    "prox_nuclear",
    "prox_scad",
    "prox_sparse_group_lasso",
    "prox_sq_l2",
    "prox_tv1d",
    "rmsprop_step",
    "sgd_step",
    "sigmoid",
    "sigmoid_backward",
    "smooth_l1_loss",
    "soft_threshold",
    "softmax",
    "softmax_backward",
]
