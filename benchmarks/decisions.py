"""Are the decisions of dropout what they say? `make statistics` writes benchmarks/STATISTICS.md.

Rates over 10⁹ decisions a probability; correlations across lags, rows, seeds, offsets, and between forward and
backward, each as a z-score (standard normal where the decisions are independent); and dieharder on bits made of masks.
"""

import argparse
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np

import fastreg

REPORT = Path(__file__).parent / "STATISTICS.md"
PART = 2**26
PROBABILITIES = [
    2.0**-20,
    2.0**-12,
    2.0**-8,
    0.01,
    0.1,
    0.25,
    0.3,
    0.5,
    0.5 + 2.0**-16,
    0.75,
    0.9,
    1 - 2.0**-12,
    1 - 2.0**-20,
]
SEEDS = [0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 2, 2**64 - 1, 0x0123456789ABCDEF]


def rates(decisions):
    """Drops among `decisions` elements of one mask, drawn in parts."""
    yield f"## Rates over {decisions:,} decisions\n"
    yield "z = (dropped − n·p)/√(n·p·(1 − p)); five or less is asked for.\n"
    yield "| p | dropped | expected | z |\n|---|---|---|---|"
    for k, p in enumerate(PROBABILITIES):
        kept = 0
        for start in range(0, decisions, PART):
            part = fastreg.dropout_mask(min(PART, decisions - start), p, seed=k, offset=k, start=start, packed=True)
            kept += int(np.bitwise_count(part).sum(dtype=np.int64))
        dropped = decisions - kept
        z = (dropped - decisions * p) / math.sqrt(decisions * p * (1 - p))
        assert abs(z) < 5, (p, z)
        yield f"| {p!r} | {dropped:,} | {decisions * p:,.1f} | {z:+.2f} |"


def correlation(a, b, p):
    """The z-score of the correlation of two masks of equal length with p known: Σ(a − q)(b − q)/(p·q·√n), q = 1 − p."""
    n = a.size
    both, sum_a, sum_b = (int(np.count_nonzero(x)) for x in (a & b, a, b))
    q = 1 - p
    return (both - q * (sum_a + sum_b) + n * q * q) / (p * q * math.sqrt(n))


def correlations(n):
    yield f"\n## Correlations over {n:,} decisions\n"
    yield "The largest |z| of each kind; that of k independent normal numbers is about √(2·ln k). 5.5 would fail.\n"
    yield "| between | p | pairs of masks | largest \\|z\\| | expected |\n|---|---|---|---|---|"
    for p in (0.5, 0.1, 0.9):
        first = fastreg.dropout_mask(n, p, seed=1)
        kinds = {
            "an element and the one 1 … 300 later": (correlation(first[:-k], first[k:], p) for k in range(1, 301)),
            "rows of a matrix of 2¹ … 2¹⁶ columns": (
                correlation(first[: -(2**k)], first[2**k :], p) for k in range(1, 17)
            ),
            "neighbouring seeds": (
                correlation(*(fastreg.dropout_mask(n, p, seed=(s + d) % 2**64) for d in (0, 1)), p) for s in SEEDS
            ),
            "neighbouring offsets": (
                correlation(*(fastreg.dropout_mask(n, p, seed=5, offset=(s + d) % 2**64) for d in (0, 1)), p)
                for s in SEEDS
            ),
            "seed and offset exchanged": (
                correlation(
                    fastreg.dropout_mask(n, p, seed=s, offset=s ^ 1),
                    fastreg.dropout_mask(n, p, seed=s ^ 1, offset=s),
                    p,
                )
                for s in SEEDS
            ),
            "one bit of the seed changed": (
                correlation(first, fastreg.dropout_mask(n, p, seed=1 ^ 1 << b), p) for b in range(64)
            ),
        }
        for kind, scores in kinds.items():
            scores = [abs(z) for z in scores]
            assert max(scores) < 5.5, (kind, p, max(scores))
            yield f"| {kind} | {p} | {len(scores)} | {max(scores):.2f} | {math.sqrt(2 * math.log(len(scores))):.1f} |"
        ones = np.ones(n, np.float32)
        forward = fastreg.dropout(ones, p, seed=1, offset=3) != 0
        backward = fastreg.dropout_backward(ones, p, seed=1, offset=3) != 0
        assert np.array_equal(forward, backward)
    yield "\nForward and backward masks are equal, element for element."


def fair_bits(n, seed):
    """The mask of p = ½ as it is."""
    return fastreg.dropout_mask(8 * n, 0.5, seed=seed, packed=True)


def von_neumann_bits(n, seed, p=0.3):
    """Fair bits of a biased mask: of two decisions that differ, the first (von Neumann 1951). Correlated ones would not
    give fair bits."""
    kept = fastreg.dropout_mask((int(8 * n / (2 * p * (1 - p)) * 1.01), 2), p, seed=seed)
    return np.packbits(kept[kept[:, 0] != kept[:, 1], 0])[:n]


# Those of dieharder's tests that need megabytes, not gigabytes; fewer where four in five decisions are discarded.
TESTS = ("0", "1", "2", "3", "4", "8", "10", "11", "12", "15", "16", "100", "101", "102 -n 4", "204", "205", "206")
STREAMS = (
    ("mask of p = 0.5", fair_bits, TESTS),
    ("pairs of a mask of p = 0.3", von_neumann_bits, ("0", "100", "101", "15")),
)
SHOWN = ("test_name", "ntuple", "pvalues", "assessment")


def dieharder():
    yield "\n## dieharder\n"
    program = shutil.which("dieharder")
    if not program:
        yield "Not installed (Debian's package `dieharder`)."
        return
    version = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", "dieharder"], capture_output=True, text=True
    ).stdout
    yield f"Version {version or 'unknown'}, on bits from masks. WEAK: p outside 0.005 … 0.995, one in a hundred.\n"
    yield "| bits | test | p-value | assessment |\n|---|---|---|---|"
    for name, bits, tests in STREAMS:
        for test in tests:
            number, *options = test.split()
            run = subprocess.Popen(
                [program, "-g", "200", "-d", number, *options, *(f"-D{what}" for what in SHOWN)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=False,
            )
            seed = 0
            try:
                while run.poll() is None:
                    run.stdin.write(bits(2**22, seed).tobytes())
                    seed += 1
            except BrokenPipeError:
                pass
            for line in run.stdout.read().decode().splitlines():
                cells = [cell.strip() for cell in line.strip("|").split("|")]
                if len(cells) >= 4 and not cells[0].startswith(("#", "test_name")):
                    yield f"| {name} | {cells[0]} {cells[1]} | {cells[2]} | {cells[3]} |"


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--decisions", type=int, default=10**9)
    given = options.parse_args()
    with REPORT.open("w") as report:
        print("# Statistics of dropout's decisions\n", file=report)
        isa = fastreg.show_config(mode="dicts")["isa"]
        print(
            f"Made by `make statistics`; fastreg {fastreg.__version__}, NumPy {np.__version__}, {isa}.\n", file=report
        )
        for part in (rates(given.decisions), correlations(2**24), dieharder()):
            for line in part:
                print(line, flush=True)
                print(line, file=report, flush=True)


if __name__ == "__main__":
    main()
