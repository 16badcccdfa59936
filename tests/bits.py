"""What is meant by the same bits; and hashes of what every Case gives, to compare two machines by:
`python tests/bits.py`, and diff.

The inputs are made of integers and exact operations alone, since NumPy's normal numbers differ between platforms in the
last bit; a line holds the hash of the inputs, too.
"""

import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from cases import CASES

import fastreg

FROM_LAPACK = ("prox_nuclear",)  # whose bits are LAPACK's
FROM_BLAS = ("dropconnect", "dropconnect_backward")


def same_bits(got: list[np.ndarray], wanted: list[np.ndarray], where: object = "") -> None:
    """Equal to the last bit, zero's sign included; one NaN is as good as another."""
    assert len(got) == len(wanted)
    for g, w in zip(got, wanted, strict=True):
        assert g.dtype == w.dtype, where
        assert g.shape == w.shape, where
        equal = np.array_equal(g, w, equal_nan=g.dtype.kind == "f")
        assert equal, where
        if g.dtype.kind == "f":
            assert np.array_equal(np.signbit(g) | np.isnan(g), np.signbit(w) | np.isnan(w)), where


class Exact(np.random.Generator):
    """What a Case asks of a Generator, without libm: a sum of four uniform numbers is normal enough."""

    def standard_normal(self, size=None, dtype=np.float64, out=None):
        return (np.sum([self.random(size) for _ in range(4)], axis=0) - 2.0).astype(dtype)[()]

    def normal(self, loc=0.0, scale=1.0, size=None):
        return loc + scale * self.standard_normal(size)


def digest(arrays):
    h = hashlib.sha256()
    for x in arrays:
        # One NaN is as good as another.
        h.update(np.where(np.isnan(x), x.dtype.type(np.nan), x).tobytes() if x.dtype.kind == "f" else x.tobytes())
    return h.hexdigest()[:24]


def main():
    for case in CASES:
        if case.function in FROM_LAPACK + FROM_BLAS or "nuc" in case.id:
            continue
        for dtype in (np.float32, np.float64):
            for shape in (case.shapes[-1], case.large):
                inputs = case.inputs(Exact(np.random.PCG64([7, *shape])), shape, dtype)
                made = digest(inputs.values())
                print(case.id, dtype.__name__, "x".join(map(str, shape)), made, digest(case.call(fastreg, inputs)))


if __name__ == "__main__":
    main()
