"""Are the decisions of dropout what they say? `make statistics` writes benchmarks/STATISTICS.md.

Rates over 10⁹ decisions a probability; correlations across lags, rows, seeds, offsets, and between forward and
backward passes, each as a z-score (standard normal where the decisions are independent); and dieharder on bits made of
masks. Twelve minutes of one core, and always the same figures: the report is written when all of it is done and within
bounds.
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
    ones = np.ones(n, np.float32)
    for p in (0.5, 0.1, 0.3, 0.9):
        first = fastreg.dropout_mask(n, p, seed=1)
        kinds = {
            "an element and the one 1 … 1,100 later": (correlation(first[:-k], first[k:], p) for k in range(1, 1101)),
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
            "one bit of the offset changed": (
                correlation(first, fastreg.dropout_mask(n, p, seed=1, offset=1 << b), p) for b in range(64)
            ),
            "a backward pass and the next forward pass": (
                correlation(
                    fastreg.dropout_backward(ones, p, seed=s, offset=k) != 0,
                    fastreg.dropout(ones, p, seed=s, offset=k + 1) != 0,
                    p,
                )
                for s in SEEDS
                for k in range(2)
            ),
        }
        for kind, scores in kinds.items():
            scores = [abs(z) for z in scores]
            assert max(scores) < 5.5, (kind, p, max(scores))
            yield f"| {kind} | {p} | {len(scores)} | {max(scores):.2f} | {math.sqrt(2 * math.log(len(scores))):.1f} |"
        for s in SEEDS:
            forward = fastreg.dropout(ones, p, seed=s, offset=3) != 0
            backward = fastreg.dropout_backward(ones, p, seed=s, offset=3) != 0
            assert np.array_equal(forward, backward)
    yield "\nA forward pass and its own backward pass drop the same elements, each of them."


def fair_bits(n, seed):
    """The mask of p = ½ as it is: a bit of Philox decides."""
    return fastreg.dropout_mask(8 * n, 0.5, seed=seed, packed=True)


def byte_bits(n, seed):
    """Fair to 2⁻³², but decided by whole bytes as any other p is."""
    return fastreg.dropout_mask(8 * n, 0.5 + 2.0**-32, seed=seed, packed=True)


def von_neumann_bits(n, seed, p=0.3):
    """Fair bits of a biased mask: of two decisions that differ, the first (von Neumann 1951). Correlated ones would not
    give fair bits."""
    kept = fastreg.dropout_mask((int(8 * n / (2 * p * (1 - p)) * 1.01), 2), p, seed=seed)
    return np.packbits(np.compress(kept[:, 0] != kept[:, 1], kept[:, 0]))[:n]


def tie_bits(n, seed):
    """What decides an element whose byte equals the threshold's, for every element: its own among the thresholds is the
    one where p = (k + ½)/256 and (k + 1)/256 differ."""
    bits = np.zeros(n, np.uint8)
    for k in range(256):
        for p in ((k + 0.5) / 256, (k + 1) / 256 + (k == 127) * 2.0**-32):
            bits ^= fastreg.dropout_mask(8 * n, p, seed=seed, packed=True)
    return bits


# dieharder's tests that its author calls good, but for number 17, which takes 8 GB.
TESTS = (
    *("0", "1", "2", "3", "4", "8", "9", "10", "11", "12", "13", "15", "16", "100", "101", "102 -n 16"),
    *("200 -n 2", "200 -n 8", "201 -n 2", "201 -n 5", "202 -n 3", "202 -n 5", "203 -n 1"),
    *("204", "205", "206", "207", "208", "209"),
)
STREAMS = {
    "p = ½": (fair_bits, TESTS),
    "p = ½ + 2⁻³²": (byte_bits, TESTS),
    "pairs, p = 0.3": (von_neumann_bits, TESTS),
    "ties": (tie_bits, ("0", "4", "8", "10", "11", "12", "15", "100", "101", "102 -n 16")),
}


def dieharder_test(test, bits, seed):
    """(name, p-value, assessment) of each figure of one test, on a stream that is its own."""
    number, *options = test.split()
    shown = [f"-D{what}" for what in ("test_name", "ntuple", "pvalues", "assessment")]
    run = subprocess.Popen(
        ["dieharder", "-g", "200", "-d", number, *options, *shown], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        while run.poll() is None:
            run.stdin.write(bits(2**22, seed).tobytes())
            seed += 1
    except BrokenPipeError:
        pass
    for line in run.communicate()[0].decode().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) >= 4 and not cells[0].startswith(("#", "test_name")):
            yield f"{cells[0]} {cells[1]}", float(cells[2]), cells[3]


def dieharder():
    package = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "dieharder"], capture_output=True, text=True)
    found = {}  # (name, which of the figures of that name) -> {stream: figure}
    weak = dict.fromkeys(STREAMS, 0)
    for stream, (bits, tests) in STREAMS.items():
        seen = {}
        for seed, test in enumerate(tests):
            for name, value, assessment in dieharder_test(test, bits, seed << 32):
                print(stream, name, value, assessment, flush=True)
                assert assessment != "FAILED"
                seen[name] = seen.get(name, 0) + 1
                mark = " weak" * (assessment == "WEAK")
                found.setdefault((name, seen[name]), {})[stream] = f"{value:.4f}{mark}"
                weak[stream] += assessment == "WEAK"
    yield "\n## dieharder\n"
    yield f"Version {package.stdout or 'unknown'}. Each test is given a stream of bits of its own, made from masks:\n"
    yield "- p = ½: the packed mask as it is; a bit of the generator's decides\n- p = ½ + 2⁻³²: likewise; bytes decide"
    yield "- pairs, p = 0.3: of two neighbours that differ, the first (von Neumann's fair bits of a biased coin)"
    yield "- ties: what decides where a byte equals the threshold's; ten tests, since 512 masks make one such stream\n"
    yield "p-values; *weak* is outside 0.005 … 0.995, one in a hundred; outside 10⁻⁶ … 1 − 10⁻⁶ would fail.\n"
    yield "| stream | p-values | weak | expected |\n|---|---|---|---|"
    for stream in STREAMS:
        n = sum(stream in figures for figures in found.values())
        yield f"| {stream} | {n} | {weak[stream]} | {n / 100:.1f} |"
    yield "\n| test | " + " | ".join(STREAMS) + " |\n|---|" + "--:|" * len(STREAMS)
    for (name, _), figures in found.items():
        yield f"| {name} | " + " | ".join(figures.get(stream, "") for stream in STREAMS) + " |"


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--decisions", type=int, default=10**9)
    given = options.parse_args()
    if not shutil.which("dieharder"):
        raise SystemExit("dieharder is needed (Debian's package of that name)")
    fastreg.set_num_threads(1)
    isa = fastreg.show_config(mode="dicts")["isa"]
    lines = ["# Statistics of dropout's decisions\n"]
    lines += [f"Made by `make statistics`; fastreg {fastreg.__version__}, NumPy {np.__version__}, {isa}.\n"]
    for part in (rates(given.decisions), correlations(2**24), dieharder()):
        for line in part:
            print(line, flush=True)
            lines.append(line)
    REPORT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
