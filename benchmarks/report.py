"""Run every measurement and write REPORT.md, report.svg and README's table, or print what `--rows PATTERN` selects.

One process a number of threads: one core, then all. See measure.py for how a measurement is made, rows.py for what is
measured and the targets.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import rows

import fastreg

HERE = Path(__file__).parent
OURS = ("fastreg", "1 thread", "a share", "avx2", "plain", "limit", "np.multiply")  # contenders that are not peers


def run(*arguments):
    """The lines that measure.py prints, as they come."""
    child = subprocess.Popen([sys.executable, HERE / "measure.py", *arguments], stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        yield json.loads(line)
    if child.wait():
        raise SystemExit(f"measure.py {' '.join(arguments)} failed")


def cpus():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


# ---- how a measurement reads -------------------------------------------------------------------------------------


def duration(seconds):
    for unit, scale in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1 or unit == "µs":
            return f"{seconds * scale:.3g} {unit}" if seconds * scale < 1000 else f"{seconds * scale:.0f} {unit}"


def size(n):
    n = int(n)
    power = str(n.bit_length() - 1).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"2{power}" if n & (n - 1) == 0 and n > 1 else f"{n:,}"


def shape(s):
    return size(s[0]) if len(s) == 1 else f"({', '.join(map(str, s))})"


def key(line):
    return line["row"], tuple(line["shape"]), line["dtype"]


def median(line, contender):
    return line["times"][contender]["median"]


def peers_of(line):
    """Peers, fastest first."""
    return sorted((n for n in line["times"] if n not in OURS), key=lambda n: median(line, n))


def table(lines):
    one = all("1 thread" not in line["times"] for line in lines)
    head = ["row", "shape", "fastreg", "spread", "limit", "of the limit"]
    head += ["best peer", "its time", "ratio", "other peers"]
    if not one:
        head.insert(6, "× 1 thread")
    yield "| " + " | ".join(head) + " |"
    yield "|---|---|" + "--:|" * (len(head) - 6 + 1) + "---|--:|--:|---|"
    for line in lines:
        ours, (best, *others) = "fastreg", peers_of(line) or ["none"]
        times = line["times"][ours]
        cells = [
            line["row"] + (" (f64)" if line["dtype"] == "f8" else ""),
            shape(line["shape"]),
            duration(median(line, ours)),
            f"{(times['q3'] - times['q1']) / 2 / times['median']:.0%} of {times['samples']}",
            f"{duration(median(line, 'limit'))} ({line['limit']})" if line["limit"] else "",
            f"{median(line, 'limit') / median(line, ours):.0%}" if line["limit"] else "",
            best,
            duration(median(line, best)) if best != "none" else "",
            f"{median(line, best) / median(line, ours):.2f}" if best != "none" else "",
            ", ".join(
                [f"{n} {duration(median(line, n))}" for n in others]
                + [f"{n}: off by more than 10⁻³" for n in line.get("wrong", ())]
            ),
        ]
        if not one:
            cells.insert(6, f"{median(line, '1 thread') / median(line, ours):.2f}")
        yield "| " + " | ".join(cells) + " |"


# ---- targets -----------------------------------------------------------------------------------------------------


def ratio(target, line, lines):
    """time of `what` / time of `against` in a line; None where one of them was not measured."""
    if target.against.startswith("row "):
        other = [o for o in lines if o["row"] == target.against[4:] and o["shape"] == line["shape"]]
        against = [median(o, target.what) for o in other if o["dtype"] == line["dtype"]]
    else:
        words = [n for n in line["times"] if n == target.against or n.split()[0] == target.against]
        against = [median(line, n) for n in words]
    return median(line, target.what) / min(against) if against and target.what in line["times"] else None


def check(target, lines):
    """(the worst ratio, where), over the shapes of a target; None where nothing was measured."""
    wanted = [line for line in lines if line["row"] == target.row and line["dtype"] == "f4"]
    if target.shapes is not None:
        wanted = [line for line in wanted if tuple(line["shape"]) in target.shapes]
    found = [(r, shape(line["shape"])) for line in wanted if (r := ratio(target, line, lines)) is not None]
    return max(found, default=None)


def in_words(target):
    name = {
        "np.multiply": "`np.multiply`",
        "limit": "the limit",
        "1 thread": "one thread",
        "fastreg": "AVX-512",
        "plain": "the same without",
    }
    against = name.get(target.against, target.against.replace("row ", ""))
    subject = target.row + (" on AVX2" if target.what == "avx2" else "")
    if target.at_most < 0.68:
        wanted = f"≥ {1 / target.at_most:.3g} × faster than {against}"
    else:
        wanted = f"≤ {target.at_most:.3g} × {against}"
    where = ", ".join(map(shape, target.shapes)) if target.shapes is not None else "every shape"
    return subject, wanted, where


def free_threads(lines, row, place):
    """How many times faster than one thread threads would be that cost nothing: the whole against one's share of it."""
    line = next(o for o in lines if (o["row"], shape(o["shape"]), o["dtype"]) == (row, place, "f4"))
    return median(line, "1 thread") / median(line, "a share") if "a share" in line["times"] else None


def targets(measured):
    yield "| row | target | at | cores | worst measured | at | |"
    yield "|---|---|---|---|--:|---|---|"
    notes = []
    for target in rows.TARGETS:
        for threads, lines in measured.items():
            cores = "one" if threads == 1 else "all"
            if target.threads in (cores, "both") and (worst := check(target, lines)):
                subject, wanted, where = in_words(target)
                r, place = worst
                got = f"{1 / r:.3g} × faster" if "faster" in wanted else f"{r:.2f} ×"
                if target.against == "1 thread" and (free := free_threads(lines, target.row, place)):
                    got += f" (a share of it alone: {free if 'faster' in wanted else 1 / free:.3g} ×)"
                met = r <= target.at_most
                if not met and target.binding and target.binding not in notes:
                    notes.append(target.binding)
                mark = "met" if met else "**missed**"
                if not met and target.binding:
                    mark += f" [{notes.index(target.binding) + 1}]"
                yield f"| {subject} | {wanted} | {where} | {cores} | {got} | {place} | {mark} |"
    if notes:
        yield ""
        yield from (f"{i}. {note}" for i, note in enumerate(notes, 1))


def in_company(means, threads):
    yield "| soft_threshold, 2^20 | mean | 99th percentile | longest |"
    yield "|---|--:|--:|--:|"
    for name, t in means.items():
        yield f"| {name} thread{'s' * (name[-1] != '1')} | " + " | ".join(map(duration, t.values())) + " |"
    yield ""
    for library in ("fastreg", "torch"):
        r = means[f"{library}, {threads}"]["mean"] / means[f"{library}, 1"]["mean"]
        verdict = (": met." if r <= 1.5 else ": **missed**.") if library == "fastreg" else "."
        target = " (target ≤ 1.5)" if library == "fastreg" else ""
        yield f"{library}: the mean of a call with {threads} threads is {r:.2f} × that with one{target}{verdict}"
        yield ""


def when_to_stream(lines):
    yield "| elements | ordinary | non-temporal | ordinary, then read | non-temporal, then read |"
    yield "|---|--:|--:|--:|--:|"
    for line in lines:
        cells = []
        for suffix in ("", ", then read"):
            for nt in (False, True):
                names = [n for n in line["times"] if n.endswith(", then read") == bool(suffix) and (" nt" in n) == nt]
                cells.append(duration(min(median(line, n) for n in names)) if names else "")
        yield f"| {size(line['n'])} | " + " | ".join(cells) + " |"


# ---- README's figures ---------------------------------------------------------------------------------------------


def summary(lines):
    """The table of README.md: rows.SUMMARY in microseconds, one thread, f32."""
    names = {"numba": "numba", "torch": "torch", "jax": "JAX", "numpy": "NumPy"}
    yield "| | fastreg | " + " | ".join(names.values()) + " | the same traffic by the best streaming loop |"
    yield "|---|" + "--:|" * (len(names) + 2)
    for words, row, where in rows.SUMMARY:
        line = next(o for o in lines if o["row"] == row and tuple(o["shape"]) == where and o["dtype"] == "f4")
        cells = [median(line, "fastreg")]
        for name in names:  # a library's fastest way
            cells.append(min((median(line, n) for n in peers_of(line) if n.split()[0] == name), default=None))
        cells.append(median(line, "limit"))
        yield f"| {words} | " + " | ".join("" if t is None else f"{microseconds(t)}" for t in cells) + " |"


def microseconds(seconds):
    t = seconds * 1e6
    return f"{t:.2f}" if t < 10 else f"{float(f'{t:.3g}'):,.0f}"


def write_summary(lines):
    readme = HERE.parent / "README.md"
    before, rest = readme.read_text().split(rows.SUMMARY_BEGINS)
    after = rest.split(rows.SUMMARY_ENDS)[1]
    table_ = "\n".join(summary(lines))
    readme.write_text(f"{before}{rows.SUMMARY_BEGINS}\n{table_}\n{rows.SUMMARY_ENDS}{after}")


# ---- the report --------------------------------------------------------------------------------------------------


def processor():
    try:
        words = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
        words = {k.strip(): v.strip() for k, v in words.items()}
        return f"{words['model name']} (family {words['cpu family']}, model {words['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()


def caches():
    where = Path("/sys/devices/system/cpu/cpu0/cache")
    known = [[(d / k).read_text().strip() for k in ("level", "type", "size")] for d in sorted(where.glob("index*"))]
    return ", ".join(f"L{level} {kind.lower()} {size}" for level, kind, size in known)


def versions():
    names = ("numpy", "numba", "torch", "jax")
    config = fastreg.show_config(mode="dicts")
    own = [f"fastreg {fastreg.__version__} ({config['isa']})", f"Python {platform.python_version()}"]
    return ", ".join(own + [f"{n} {importlib.metadata.version(n)}" for n in names])


def write(measured, company, streams, load, minutes, later=()):
    note = f" Measured in a run of their own, soon after: {', '.join(later)}." if later else ""
    text = f"""# fastreg against its peers and the machine

Made by `make bench`; do not edit. {minutes:.0f} minutes on {time.strftime("%Y-%m-%d", time.gmtime())}.{note}

- {versions()}
- {processor()}, {cpus()} CPUs, {caches()}; {platform.system()} {platform.release().split("-")[0]}
- load average when the run began: {load:.2f}

All contenders of a row take turns in shuffled order in one process that has as many CPUs and threads as the section
says. A turn begins with a millisecond of calls that are not counted (on several cores with a rest, until others'
threads sleep, and five), and has up to ten samples, each of as many calls as make 50 µs. Times are medians of samples,
*spread* is half the distance between the quartiles and the number of fastreg's samples.
**limit** is the fastest of the streaming
loops of `limit.c` (vector length, `nt`: non-temporal stores) that reads and writes as many arrays as the row has to,
in place where the row is; at 1,000 elements, and where the result goes to fresh memory, it is one `np.multiply`.
**ratio** is the best peer's time over fastreg's: below 1 the peer wins. Peers are in `peers.py`; the result of each is
compared with fastreg's before it is timed. f32 unless a row says f64.

![Achieved against possible](report.svg)

## Targets

"""
    text += "\n".join(targets(measured)) + "\n"
    for threads, lines in measured.items():
        text += f"\n## {'One core' if threads == 1 else f'{threads} cores'}\n\n" + "\n".join(table(lines)) + "\n"
    if company:
        text += f"\n## Beside {cpus()} busy processes\n\n" + "\n".join(in_company(company, cpus()))
    if streams:
        text += "\n## When non-temporal stores pay\n\nCopying f32 on one core by the limit's loops: alone, and where "
        text += "the copy is read at once, as by a program's next step.\n\n" + "\n".join(when_to_stream(streams)) + "\n"
    (HERE / "REPORT.md").write_text(text.rstrip() + "\n")


def picture(measured):
    """A dot a contender, a line a row and shape: how much of the limit each reaches, on one core and on all.

    Of rows that have peers; all rows are in the table.
    """
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    measured = {
        threads: [line for line in lines if peers_of(line) and line["limit"]] for threads, lines in measured.items()
    }
    colours = {"numpy": "#4e79a7", "numba": "#59a14f", "torch": "#e15759", "jax": "#b07aa1"}
    keys = [(line["row"], tuple(line["shape"])) for line in next(iter(measured.values())) if line["dtype"] == "f4"]
    where, labels, y, last = {}, [], 0.0, None
    for row, s in keys:  # a gap between rows, the row's name above its shapes
        y += 0 if row == last else 1.6
        if row != last:
            labels.append((y - 0.95, row))
        where[row, s], last, y = y, row, y + 1

    plt.rcParams |= {"font.size": 8, "font.family": "DejaVu Sans", "svg.hashsalt": "fastreg", "svg.fonttype": "none"}
    size_ = (4.2 * len(measured) + 1.6, 0.155 * y + 1)
    figure, panels = plt.subplots(1, len(measured), sharey=True, figsize=size_, squeeze=False, layout="constrained")
    right = 1.75
    for panel, (threads, lines) in zip(panels[0], measured.items(), strict=True):
        panel.axvspan(0, 1, color="#f3f3f3", zorder=0)
        panel.axvline(1, color="black", linewidth=0.8, zorder=1)
        for line in lines:
            if line["dtype"] != "f4" or not line["limit"]:
                continue
            height = where[line["row"], tuple(line["shape"])]
            reached = {n: median(line, "limit") / median(line, n) for n in ("fastreg", *peers_of(line))}
            panel.plot([0, min(reached["fastreg"], right)], [height] * 2, color="#d8a13a", linewidth=1.6, zorder=2)
            for name, share in reached.items():
                ours, beyond = name == "fastreg", share > right
                colour = "#d8850f" if ours else colours.get(name.split()[0], "#9c9c9c")
                style = {"s": 34 if ours else 13, "marker": ">" if beyond else "o", "zorder": 4 if ours else 3}
                panel.scatter(min(share, right), height, color=colour, **style)
                if ours and beyond:
                    place = {"xytext": (-5, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
                    place["bbox"] = {"color": "white", "pad": 1}
                    panel.annotate(f"{share:.1f} ×", (right, height), **place)
        for place, row in labels:
            panel.text(0.012, place, row, weight="bold", va="center", fontsize=8)
        panel.set_title("one core" if threads == 1 else f"{threads} cores", weight="bold")
        panel.set_xlim(0, right + 0.04)
        panel.set_xticks([0, 0.25, 0.5, 0.75, 1, 1.25, 1.5], ["0", "25 %", "50 %", "75 %", "limit", "125 %", "150 %"])
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
    panels[0][0].set_yticks(list(where.values()), [shape(s) for _, s in where])
    panels[0][0].set_ylim(y, -0.2)
    figure.supxlabel("speed as a share of the limit: the same memory traffic by the best streaming loop, same run")
    marks = [plt.Line2D([], [], marker="o", linestyle="", color=c, markersize=4, label=n) for n, c in colours.items()]
    marks.append(plt.Line2D([], [], marker="o", linestyle="", color="#9c9c9c", markersize=4, label="others"))
    marks.insert(0, plt.Line2D([], [], marker="o", linestyle="-", color="#d8850f", markersize=6, label="fastreg"))
    figure.legend(handles=marks, loc="outside upper center", ncols=len(marks), frameon=False)
    figure.savefig(HERE / "report.svg", metadata={"Date": None})
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="", help="print the rows whose name holds this; write nothing")
    parser.add_argument("--largest", default="inf", help="with --rows: shapes of so many elements at most")
    parser.add_argument("--seconds", default="0.08", help="for each contender of a row at a shape")
    parser.add_argument("--save", help="keep the measurements in this JSON file")
    parser.add_argument(
        "--load",
        nargs="+",
        help="measure nothing, write the report of saved files: what later ones hold "
        "is added to the first, or takes its place",
    )
    options = parser.parse_args()
    start, load = time.time(), os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    if options.load:
        state, *more = (json.loads(Path(file).read_text()) for file in options.load)
        company, streams, load, minutes = (state[k] for k in ("company", "streams", "load", "minutes"))
        measured = {int(t): {key(line): line for line in lines} for t, lines in state["measured"].items()}
        later = []
        for other in more:
            minutes += other["minutes"]
            again = [line for lines in other["measured"].values() for line in lines]
            names = sorted({line["row"] for line in again})
            most = max(math.prod(line["shape"]) for line in again)
            pattern = other.get("rows")
            every = f"rows that hold '{pattern}'" if pattern else f"all shapes of up to {most:,} elements"
            later += names if len(names) < 8 else [every]
            for t, lines in other["measured"].items():
                measured[int(t)] |= {key(line): line for line in lines}
        measured = {t: list(lines.values()) for t, lines in measured.items()}
    else:
        measured, company, streams, failed, later = {}, None, None, [], ()
        for threads in sorted({1, cpus()}):
            measured[threads] = []
            only = ("--rows", options.rows or "*", "--largest", options.largest, "--seconds", options.seconds)
            for line in run("--threads", str(threads), *only):
                if "failed" in line:
                    failed.append(f"{line['row']} {shape(line['shape'])} ({line['dtype']}): {line['failed']}")
                    print(f"FAILED: {failed[-1]}", flush=True)
                    continue
                measured[threads].append(line)
                last = [line]
                print(f"{threads} thread{'s'[: threads > 1]}:", *list(table(last))[2:], flush=True)
        if not options.rows and cpus() > 1:
            company = next(run("--busy", "--threads", str(cpus())))
        if not options.rows:
            streams = list(run("--stores", "--seconds", options.seconds))
        minutes = (time.time() - start) / 60
        if failed:
            print("not measured:", *failed, sep="\n", file=sys.stderr)
        if options.save:
            state = {"measured": measured, "company": company, "streams": streams, "load": load, "minutes": minutes}
            state["rows"] = options.rows
            Path(options.save).write_text(json.dumps(state))
        if failed and not options.rows:
            raise SystemExit("the report is not written: rows are missing (--save and --load write it all the same)")
    if options.rows:
        print(*targets(measured), sep="\n")
    else:
        write(measured, company, streams, load, minutes, later)
        picture(measured)
        write_summary(measured[1])


if __name__ == "__main__":
    main()
