"""What dropout alone promises: known answers, a frozen mapping, exact decisions, parts that equal the whole."""

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import DTYPES, ISAS

import fastreg
from fastreg import fastreg_runtime as runtime
from fastreg import reference
from fastreg.reference.dropout import philox4x32

DATA = Path(__file__).parent / "data"
every_isa = pytest.mark.parametrize("isa", ISAS)
PROBABILITIES = (0.0, 2.0**-33, 2.0**-20, 0.1, 0.25, 0.5, 0.5 + 2.0**-32, 0.7, 0.75, 1 - 2.0**-20, 1 - 2.0**-32, 1.0)


def philox(q, seed, offset):
    """Four words from the counter (q, offset): the paper's algorithm in Python's integers."""
    c = [q & 0xFFFFFFFF, q >> 32, offset & 0xFFFFFFFF, offset >> 32]
    k = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(right >> 32) ^ c[1] ^ k[0], right & 0xFFFFFFFF, (left >> 32) ^ c[3] ^ k[1], left & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def is_kept(i, p, seed, offset):
    """docs/dropout-mapping.md for one element, with nothing of the library's."""
    t = round(p * 2**32)

    def byte(j):
        group, within = divmod(j, 256)
        word, lane, low = within // 64, within % 64 // 4, within % 4
        return philox(16 * group + lane, seed, offset)[word] >> 8 * low & 0xFF

    if t == 2**31:
        return byte(i // 8) >> 7 - i % 8 & 1 == 1
    number = byte(i)
    if number == t >> 24:
        return philox(i >> 2 | 1 << 63, seed, offset)[i & 3] >> 8 >= t & 0xFFFFFF
    return number > t >> 24


def known_answers():
    for line in (DATA / "philox4x32_10.txt").read_text().splitlines():
        if not line.startswith("#"):
            words = [int(word, 16) for word in line.split()]
            yield words[:4], words[4:6], words[6:]


@pytest.mark.parametrize(("counter", "key", "wanted"), list(known_answers()))
def test_known_answers_of_philox(counter, key, wanted):
    assert philox(counter[0] | counter[1] << 32, key[0] | key[1] << 32, counter[2] | counter[3] << 32) == wanted
    assert philox4x32(np.array(counter)[:, np.newaxis], key).ravel().tolist() == wanted


@every_isa
def test_known_answer_comes_out_of_the_kernel(isa):
    """Counter 0, key 0 is the first word of each of the four rows of sixteen lanes."""
    runtime._use_isa(isa)
    words = fastreg.dropout_mask(2048, 0.5, seed=0, packed=True).view("<u4").reshape(4, 16)
    assert words[:, 0].tolist() == next(known_answers())[2]


@every_isa
@pytest.mark.parametrize("p", PROBABILITIES)
def test_decisions_are_those_of_the_mapping(isa, p):
    runtime._use_isa(isa)
    for seed, offset, start in (0, 0, 0), (2**64 - 1, 2**64 - 1, 2**40 + 7), (2**32, 2**32 - 1, 2**63 - 600):
        mask = fastreg.dropout_mask(600, p, seed=seed, offset=offset, start=start)
        assert mask.tolist() == [is_kept(start + i, p, seed, offset) for i in range(600)]


@every_isa
@pytest.mark.parametrize(("p", "edge"), [(0.3, 2**36), (0.5, 2**39), (0.3, 2**62), (0.5, 2**62)])
def test_counters_carry_into_their_upper_word(isa, p, edge):
    """2^32 counters are 2^36 bytes: decisions of bytes, or eight times as many bits, on both sides; odd starts too."""
    runtime._use_isa(isa)
    for before, n in (9000, 18_000), (4095, 8192), (3, 70):
        start = edge - before
        mask = fastreg.dropout_mask(n, p, seed=6, offset=2**32, start=start)
        for i in [*range(max(0, before - 40), before + 40), *range(0, n, 997)]:
            assert mask[i] == is_kept(start + i, p, 6, 2**32), (start, i)
        x = np.ones(n, np.float32)
        assert np.array_equal(fastreg.dropout(x, p, seed=6, offset=2**32, start=start) != 0, mask)


@every_isa
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.5, 0.3, 0.25])
def test_wherever_an_array_begins(isa, dtype, p):
    """Vectors begin where lines of the output do: every place in a line, in place or not, ties and all."""
    runtime._use_isa(isa)
    n, scale = 5000, dtype(1 / (1 - p))
    mask = fastreg.dropout_mask(n, p, seed=12)
    values = np.random.default_rng(0).standard_normal(n).astype(dtype)
    wanted = np.where(mask, values * scale, 0)
    room = np.empty(n + 20, dtype)
    for lead in range(17):
        out = room[lead : lead + n]
        assert np.array_equal(fastreg.dropout(values, p, seed=12, out=out), wanted), lead
        out[...] = values
        assert np.array_equal(fastreg.dropout(out, p, seed=12, out=out), wanted), lead


def ties(n, p, seed, offset=0, start=0):
    """Indices whose first byte is that of the threshold: the first byte is known from two masks of 8-bit p."""
    byte = round(p * 2**32) >> 24
    least = fastreg.dropout_mask(n, byte / 256, seed=seed, offset=offset, start=start)
    above = fastreg.dropout_mask(n, (byte + 1) / 256, seed=seed, offset=offset, start=start)
    return np.flatnonzero(least & ~above)


@every_isa
@pytest.mark.parametrize("p", [0.1, 0.3, 0.51, 2.0**-20, 1 - 2.0**-20])
def test_ties_are_resolved_to_the_last_bit(isa, p):
    """One element in 256 needs its other 24 bits: all of those, and the exact number on both sides of t."""
    runtime._use_isa(isa)
    n, seed, offset = 40_000, 11, 5
    found = ties(n, p, seed, offset)
    assert found.size > 50
    kept = fastreg.dropout_mask(n, p, seed=seed, offset=offset)
    assert kept[found].tolist() == [is_kept(int(i), p, seed, offset) for i in found]
    byte = round(p * 2**32) >> 24
    for i in found[:20].tolist():
        number = byte << 24 | philox(i >> 2 | 1 << 63, seed, offset)[i & 3] >> 8
        assert fastreg.dropout_mask(n, number / 2**32, seed=seed, offset=offset)[i]  # not below itself
        assert not fastreg.dropout_mask(n, (number + 1) / 2**32, seed=seed, offset=offset)[i]


def golden():
    for line in (DATA / "dropout_masks.txt").read_text().splitlines():
        if not line.startswith("#"):
            shape, axis, p, seed, offset, start, kept, digest = line.split()
            yield (
                tuple(int(n) for n in shape.split("x")),
                None if axis == "-" else tuple(int(n) for n in axis.split(",")),
                float.fromhex(p),
                *(int(n) for n in (seed, offset, start, kept)),
                digest,
            )


@every_isa
@pytest.mark.parametrize("threads", [1, 5])
def test_masks_are_frozen(isa, threads, pool):
    runtime._use_isa(isa)
    fastreg.set_num_threads(threads)
    for shape, axis, p, seed, offset, start, kept, digest in golden():
        stream = {"seed": seed, "offset": offset, "axis": axis, "start": start}
        packed = fastreg.dropout_mask(shape, p, packed=True, **stream)
        where = (shape, p, stream)
        assert int(np.bitwise_count(packed).sum()) == kept, where
        assert hashlib.sha256(packed.tobytes()).hexdigest()[:32] == digest, where
        mask = fastreg.dropout_mask(shape, p, **stream)
        assert np.array_equal(np.packbits(mask), packed), where
        for dtype in DTYPES:
            for order in "CF":
                ones = np.ones(shape, dtype, order)
                assert np.array_equal(fastreg.dropout(ones, p, **stream) != 0, mask), (where, dtype, order)
                assert np.array_equal(fastreg.dropout_backward(ones, p, **stream) != 0, mask), (where, dtype, order)


@pytest.mark.parametrize("p", [0.5, 0.3])
@pytest.mark.parametrize("cut", [1, 7, 256, 2047, 2048, 16384, 30_001])
def test_parts_are_parts_of_the_whole(p, cut):
    n = 50_000
    whole = fastreg.dropout_mask(n, p, seed=9)
    parts = [fastreg.dropout_mask(end - start, p, seed=9, start=start) for start, end in ((0, cut), (cut, n))]
    assert np.array_equal(np.concatenate(parts), whole)
    packed = fastreg.dropout_mask(n - cut, p, seed=9, start=cut, packed=True)
    assert np.array_equal(packed, np.packbits(whole[cut:]))
    x = np.arange(1.0, n + 1)
    for function in fastreg.dropout, fastreg.dropout_backward:
        assert np.array_equal(function(x[cut:], p, seed=9, start=cut), function(x, p, seed=9)[cut:])


@pytest.mark.parametrize("offset", [2**32 - 1, 2**32, 2**64 - 1])
@pytest.mark.parametrize("p", [0.5, 0.3])
def test_parts_of_channels_are_parts_of_the_whole(p, offset):
    """A batch of 40 images over two machines: `start` counts decisions, one a channel."""
    x = np.ones((40, 6, 3, 3), np.float32)
    stream = {"p": p, "seed": 2**64 - 1, "offset": offset, "axis": (0, 1)}
    parts = [fastreg.dropout(x[a:b], **stream, start=6 * a) for a, b in ((0, 17), (17, 40))]
    assert np.array_equal(np.concatenate(parts), fastreg.dropout(x, **stream))


@pytest.mark.usefixtures("every_isa")
@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_and_one_are_exact(dtype):
    x = np.array([1.5, -2.0, np.nan, np.inf, -0.0], dtype)
    for mode in ("inverted", "vanilla"):
        assert np.array_equal(fastreg.dropout(x, 0, seed=1, mode=mode), x, equal_nan=True)
        for dropped in fastreg.dropout(x, 1, seed=1, mode=mode), fastreg.dropout(x, 1.0 - 2.0**-40, seed=1, mode=mode):
            assert np.array_equal(dropped, np.zeros_like(x))
            assert not np.signbit(dropped).any()


@pytest.mark.parametrize("p", [0.5, 0.3])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0, -0.0])
def test_a_dropped_element_is_plus_zero(p, value):
    y = fastreg.dropout(np.full(5000, value), p, seed=4)
    dropped = ~fastreg.dropout_mask(5000, p, seed=4)
    assert np.array_equal(y[dropped], np.zeros(dropped.sum()))
    assert not np.signbit(y[dropped]).any()
    assert np.array_equal(y[~dropped], np.full((~dropped).sum(), value) * (1 / (1 - p)), equal_nan=True)


@pytest.mark.parametrize("mode", ["inverted", "vanilla"])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_expectation_is_the_other_pass(mode, p):
    """Σ over n of a Bernoulli variable of deviation √(p(1−p)): within five of them."""
    n = 1_000_000
    trained = fastreg.dropout(np.ones(n), p, seed=8, mode=mode)
    otherwise = fastreg.dropout(np.ones(n), p, seed=8, mode=mode, training=False)
    scale = 1 / (1 - p) if mode == "inverted" else 1.0
    assert abs(trained.mean() - otherwise.mean()) < 5 * scale * np.sqrt(p * (1 - p) / n)


def test_channels_are_dropped_whole():
    y = fastreg.dropout(np.ones((16, 8, 5, 3), np.float32), 0.3, seed=2, axis=(0, 1))
    kept = fastreg.dropout_mask((16, 8), 0.3, seed=2)
    assert np.array_equal(y != 0, np.broadcast_to(kept[:, :, None, None], y.shape))
    every = fastreg.dropout(np.ones((16, 8)), 0.3, seed=2, axis=(0, -1))
    assert np.array_equal(every, fastreg.dropout(np.ones((16, 8)), 0.3, seed=2))


@every_isa
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40, 6), (40, 6, 1), (40, 6, 7), (10, 3, 8, 8), (5, 3, 23, 23), (3, 2, 40, 40)])
def test_channels_of_any_length(isa, dtype, shape):
    """Runs from one element to more than a page; wherever the output begins, in place, and beside a shifted input."""
    runtime._use_isa(isa)
    values = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    values.flat[::7] = np.nan
    kept = fastreg.dropout_mask(shape[:2], 0.4, seed=2, offset=1).reshape(shape[:2] + (1,) * (len(shape) - 2))
    wanted = np.where(kept, values * dtype(1 / 0.6), 0)
    stream = {"p": 0.4, "seed": 2, "offset": 1, "axis": (0, 1)}
    room = np.empty(values.size + 20, dtype)
    for lead in 0, 1, 3, 16:
        out = room[lead : lead + values.size].reshape(shape)
        assert np.array_equal(fastreg.dropout(values, out=out, **stream), wanted, equal_nan=True)
        assert not np.signbit(out[np.broadcast_to(~kept, shape)]).any()
        out[...] = values
        assert np.array_equal(fastreg.dropout(out, out=out, **stream), wanted, equal_nan=True)
        shifted = room[:-20].reshape(shape)
        shifted[...] = values
        assert np.array_equal(fastreg.dropout(shifted, out=out, **stream), wanted, equal_nan=True)


def test_masks_of_any_shape():
    assert fastreg.dropout_mask((), seed=0).shape == ()
    assert fastreg.dropout_mask(3, seed=0).shape == fastreg.dropout_mask(np.int8(3), seed=0).shape == (3,)
    assert fastreg.dropout_mask([2, 0], seed=0).shape == (2, 0)
    assert fastreg.dropout_mask((2, 0), seed=0, packed=True).shape == (0,)
    for n in range(1, 20):
        packed = fastreg.dropout_mask(n, 0.0, seed=0, packed=True)
        assert np.array_equal(np.unpackbits(packed), [1] * n + [0] * (-n % 8))


BAD = [
    ({"p": -0.1}, ValueError, "p"),
    ({"p": 1.1}, ValueError, "p"),
    ({"p": np.nan}, ValueError, "p"),
    ({"p": "half"}, TypeError, "p"),
    ({"seed": -1}, ValueError, "seed"),
    ({"seed": 2**64}, ValueError, "seed"),
    ({"seed": 1.0}, TypeError, "seed"),
    ({"seed": None}, TypeError, "seed"),
    ({"seed": True}, TypeError, "seed"),
    ({"offset": -1}, ValueError, "offset"),
    ({"offset": 2**64}, ValueError, "offset"),
    ({"offset": 0.5}, TypeError, "offset"),
    ({"start": -1}, ValueError, "start"),
    ({"start": 2**63 - 3}, ValueError, "start"),
    ({"start": 2**63}, ValueError, "start"),
    ({"start": 0.5}, TypeError, "start"),
    ({"axis": 2}, ValueError, "axis"),
    ({"axis": (0, -2)}, ValueError, "axis"),
    ({"axis": 0.5}, TypeError, "axis"),
]
BAD_CALL = [*BAD, ({"mode": "scaled"}, ValueError, "mode"), ({"mode": None}, ValueError, "mode")]


@pytest.mark.parametrize(("bad", "kind", "name"), BAD_CALL)
@pytest.mark.parametrize("function", [fastreg.dropout, fastreg.dropout_backward])
def test_bad_calls_change_nothing(function, bad, kind, name):
    x, out = np.ones((2, 3)), np.full((2, 3), 9.0)
    with pytest.raises(kind, match=name):
        function(x, **({"seed": 0} | bad), out=out)
    assert np.array_equal(out, np.full((2, 3), 9.0))


@pytest.mark.parametrize(("bad", "kind", "name"), BAD)
def test_bad_masks(bad, kind, name):
    with pytest.raises(kind, match=name):
        fastreg.dropout_mask((2, 3), **({"seed": 0} | bad))


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((2, -1), ValueError), (2.5, TypeError), ((2, 0.5), TypeError), (None, TypeError), ((2**40, 2**40), ValueError)],
)
def test_bad_shapes(shape, kind):
    with pytest.raises(kind, match="shape"):
        fastreg.dropout_mask(shape, seed=0)


def test_an_axis_of_a_scalar_is_refused():
    with pytest.raises(ValueError, match="axis"):
        fastreg.dropout(1.0, seed=0, axis=0)


def test_dropconnect_in_blocks_is_the_whole_product():
    """Several blocks of weights: every integer product is exact, so that the sums are too."""
    rng = np.random.default_rng(0)
    x = rng.integers(-8, 9, (3, 3000)).astype(np.float32)
    weight = rng.integers(-8, 9, (200, 3000)).astype(np.float32)
    grad = rng.integers(-8, 9, (3, 200)).astype(np.float32)
    masked = 2 * weight * fastreg.dropout_mask(weight.shape, 0.5, seed=3, offset=1)
    assert np.array_equal(fastreg.dropconnect(x, weight, p=0.5, seed=3, offset=1), x @ masked.T)
    by_x, by_weight, by_bias = fastreg.dropconnect_backward(grad, x, weight, 0.5, seed=3, offset=1)
    assert np.array_equal(by_x, grad @ masked)
    assert np.array_equal(by_weight, 2 * fastreg.dropout_mask(weight.shape, 0.5, seed=3, offset=1) * (grad.T @ x))
    assert np.array_equal(by_bias, grad.sum(0))


def test_dropconnect_holds_a_block():
    """Of 64 MB of weights no more than a block of 2 MB is ever masked; its mask is nowhere."""
    x, weight, grad = np.ones((2, 4096), np.float32), np.ones((4096, 4096), np.float32), np.ones((2, 4096), np.float32)
    most = 2.25 * 2**20
    tracemalloc.start()
    try:
        fastreg.dropconnect(x, weight, p=0.3, seed=1)
        assert tracemalloc.get_traced_memory()[1] < most
        tracemalloc.reset_peak()
        fastreg.dropconnect_backward(grad, x, weight, 0.3, seed=1)
        assert tracemalloc.get_traced_memory()[1] < weight.nbytes + most  # the gradient by the weights, and a block
    finally:
        tracemalloc.stop()


def test_dropconnect_gradients_are_the_differences():
    """Central differences of Σ grad∘y: it is linear in each argument, so that only rounding is left."""
    rng = np.random.default_rng(1)
    x, weight, grad = rng.standard_normal((4, 5)), rng.standard_normal((3, 5)), rng.standard_normal((4, 3))
    by_x, by_weight, _ = fastreg.dropconnect_backward(grad, x, weight, 0.3, seed=1)
    for given, got in (x, by_x), (weight, by_weight):
        for index in np.ndindex(given.shape):
            sums = []
            before = given[index]
            for step in (1.0, -1.0):
                given[index] = before + step
                sums.append((grad * fastreg.dropconnect(x, weight, p=0.3, seed=1)).sum())
            given[index] = before
            assert abs((sums[0] - sums[1]) / 2 - got[index]) < 1e-12


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        ({"x": np.ones(5)}, "x"),
        ({"weight": np.ones((3, 4))}, "weight"),
        ({"weight": np.ones(5)}, "weight"),
        ({"bias": np.ones(4)}, "bias"),
        ({"p": 2}, "p"),
        ({"seed": -1}, "seed"),
        ({"offset": -1}, "offset"),
    ],
)
def test_bad_calls_of_dropconnect(bad, name):
    given = {"x": np.ones((4, 5)), "weight": np.ones((3, 5)), "seed": 0} | bad
    with pytest.raises(ValueError, match=name):
        fastreg.dropconnect(**given)
    if name != "bias":
        with pytest.raises(ValueError, match=name):
            fastreg.dropconnect_backward(np.ones((4, 3)), **given)
    with pytest.raises(ValueError, match="grad"):
        fastreg.dropconnect_backward(np.ones((4, 2)), np.ones((4, 5)), np.ones((3, 5)), seed=0)


def test_the_reference_draws_the_same_masks():
    for shape, axis, packed in (((5, 7), None, False), ((5, 7), 1, False), (13, None, True), ((), None, False)):
        options = {"seed": 9, "offset": 3, "axis": axis, "packed": packed}
        ours, theirs = fastreg.dropout_mask(shape, 0.3, **options), reference.dropout_mask(shape, 0.3, **options)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


def test_a_seed_is_any_integer_of_64_bits():
    wanted = fastreg.dropout_mask(300, 0.5, seed=5, offset=7)
    for kind in (np.int8, np.int64, np.uint64, lambda n: np.array(n)):
        assert np.array_equal(fastreg.dropout_mask(300, 0.5, seed=kind(5), offset=kind(7)), wanted)
    most = fastreg.dropout_mask(300, 0.5, seed=2**64 - 1)
    assert np.array_equal(fastreg.dropout_mask(300, 0.5, seed=np.uint64(2**64 - 1)), most)
    for bad in (np.int64(-1), np.int8(-5), -1, 2**64):
        with pytest.raises(ValueError, match=r"seed: got .*\[0, 2\*\*64\)"):
            fastreg.dropout_mask(300, 0.5, seed=bad)
