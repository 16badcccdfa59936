import numpy as np
import pytest

import fastreg
from fastreg import fastreg_runtime as runtime

DTYPES = (np.float32, np.float64)
ISAS = [isa for isa in fastreg.show_config(mode="dicts")["isas_built"] if runtime._use_isa(isa)]
runtime._use_isa("")


@pytest.fixture(autouse=True)
def as_imported():
    """Each test starts and leaves the runtime as it was at import."""
    threads = fastreg.get_num_threads()
    isa = fastreg.show_config(mode="dicts")["isa"]
    yield
    fastreg.set_num_threads(threads)
    runtime._use_isa(isa)
    runtime._ignore_cutoffs(False)


@pytest.fixture
def pool():
    """Every call of two blocks or more is a job of the pool."""
    runtime._ignore_cutoffs(True)


@pytest.fixture(params=ISAS)
def every_isa(request):
    """For what no Case reaches (test_laws.py runs over all): corners of a kernel, on each instruction set."""
    runtime._use_isa(request.param)
