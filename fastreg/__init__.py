"""fastreg: the regularisation core of machine learning as one small, fast NumPy library."""

from fastreg import penalties
import sys

from fastreg._dropout import dropout, dropout_backward, dropout_mask
from fastreg._losses import (
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
from fastreg._norm import batch_norm, batch_norm_backward
from fastreg._optim import (
    adagrad_step,
    adam_step,
    ftrl_init_z,
    ftrl_step,
    ftrl_step_sparse,
    rmsprop_step,
    sgd_step,
)
from fastreg._prox import (
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
from fastreg.fastreg_runtime import get_num_threads, set_num_threads, show_config

__version__ = "0.1.0"

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
    "get_num_threads",
    "hard_threshold",
    "huber_loss",
    "l1_loss",
    "log_softmax",
    "log_softmax_backward",
    "mse_loss",
    "penalties",
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
    "set_num_threads",
    "sgd_step",
    "show_config",
    "sigmoid",
    "sigmoid_backward",
    "smooth_l1_loss",
    "soft_threshold",
    "softmax",
    "softmax_backward",
]

if "threadpoolctl" in sys.modules:
    import fastreg.threadpools  # noqa: F401 (registers with it)
