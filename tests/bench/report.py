"""The comparison's figures as Markdown and as a plot.

`python -m tests.bench.report docs/bench/peers.json` writes both again from the figures.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from models.files import write_whole
from tests.bench.peers.contenders import OURS

BEGIN, END = "<!-- figures: written by `make bench-peers` -->", "<!-- /figures -->"
TITLES = {
    "photos": "The real model on photos of several people",
    "device": "The simulated device: 4 + 0.15 n ms for a batch of n, 36.9 kB crops with their box",
}
PICTURE = "![People a second, p99 and goodput of each server](bench/peers.png)"
COLOURS = {OURS: "tab:red", "FastAPI": "tab:gray", "LitServe": "tab:purple", "mosec": "tab:blue"}

Found = dict[str, Any]


def write_report(result: Found, page: Path | None) -> str:
    """Make the tables, and, where there is a page, put them between its marks.

    Args:
        result: the figures, as JSON has them.
        page: `docs/bench.md`; figures and plot go into `docs/bench/` beside it.

    Returns:
        The tables.

    Raises:
        ValueError: the page has no marks.
    """
    tables = "\n".join(_tables(result))
    if page:
        text = page.read_text()
        pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{page} has no {BEGIN} ... {END}")
        folder = page.with_suffix("")
        folder.mkdir(exist_ok=True)
        write_whole(folder / "peers.json", (json.dumps(result, indent=1) + "\n").encode())
        plot(result, folder / "peers.png")
        marked = f"{BEGIN}\n{tables}\n\n{PICTURE}\n{END}"
        write_whole(page, pattern.sub(lambda _: marked, text).encode())
    return tables


def _tables(result: Found) -> Iterator[str]:
    facts = ", ".join(f"{name} {value}" for name, value in result["machine"].items())
    extent = "one quick round" if result["quick"] else "medians of interleaved rounds"
    yield f"{facts}; {extent}, {result['seconds'] / 60:.0f} minutes in all."
    for name, field in result["fields"].items():
        yield f"\n### {TITLES[name]}\n"
        yield from _closed(field)
        yield ""
        yield from _open(field)
        yield ""
        yield from _faults(field)


def _closed(field: Found) -> Iterator[str]:
    top = field["ceiling"]
    yield (
        f"People a second as a share of the in-process loop's ({top['people_s']:.4g}; alone "
        f"{top['lone_people_s']:.4g}), and p50 / p99 in ms, by the number of clients:\n"
    )
    clients = list(next(iter(field["servers"].values()))["closed"])
    yield from _head("server", *(f"{number} client{'s'[: number != '1']}" for number in clients))
    for name, seen in field["servers"].items():
        yield _line(
            name,
            *(
                f"{run['people_s'] / top['people_s']:.2f} ({_ms(run['p50_ms'])} / "
                f"{_ms(run['p99_ms'])})"
                for run in seen["closed"].values()
            ),
        )


def _open(field: Found) -> Iterator[str]:
    yield (
        "Goodput under arrivals at a multiple of the server's own best rate, as a share of that "
        f"rate (a client hangs up after {field['within_ms']} ms), and in brackets what was sent "
        "where the clients could not send as much:\n"
    )
    overload = list(next(iter(field["servers"].values()))["open"])
    yield from _head("server", *(f"{times} x" for times in overload))
    for name, seen in field["servers"].items():
        best = peak(seen)
        yield _line(
            name,
            *(_goodput(run, best, float(times)) for times, run in seen["open"].items()),
        )


def _goodput(run: Found, best: float, times: float) -> str:
    sent = run["offered_s"] / best
    note = f" ({sent:.1f} x sent)" if sent < 0.9 * times else ""
    return f"{run['photos_s'] / best:.2f}{note}"


def _faults(field: Found) -> Iterator[str]:
    worst = list(next(iter(field["servers"].values()))["open"])[-1]
    yield f"At {worst} x, and after other hardships:\n"
    columns = ["answers p99, ms", "refusals p99, ms", "late", "healthz p99, ms"]
    columns += ["back to normal, s", "good requests lost to a bad neighbour", "CPU, ms a request"]
    simulated = any("abandoned" in seen for seen in field["servers"].values())
    if simulated:
        columns += ["crops computed for 400 who hung up", "memory, MB", "MB more in 10^4 requests"]
    yield from _head("server", *columns)
    for name, seen in field["servers"].items():
        run, lost = seen["open"][worst], seen["poison"]
        recovered = run["recovered_s"]
        cells = [
            _ms(run["p99_ms"]),
            _ms(run["refused_p99_ms"]) if run["refused"] else "refuses nobody",
            f"{run['late']} of {run['sent']}",
            _ms(run["health_p99_ms"]),
            "not in 30" if recovered is None else f"{recovered:.1f}",
            f"{lost['lost']} of {lost['good']}",
            _ms(seen["cpu_ms"]),
        ]
        if simulated:
            memory = (seen["memory_mb"], seen["memory_slope_mb"])
            cells += [str(seen["abandoned"]), *(f"{value:.0f}" for value in memory)]
        yield _line(name, *cells)


def peak(seen: Found) -> float:
    """A server's best closed loop, photos a second."""
    return max(float(run["photos_s"]) for run in seen["closed"].values())


def plot(result: Found, file: Path) -> None:
    """A row a field: people a second and p99 over clients, goodput over what arrives."""
    import matplotlib as mpl  # only the bench's own environment and the training extra have it

    mpl.use("Agg")
    from matplotlib import pyplot

    fields = result["fields"]
    figure, rows = pyplot.subplots(
        len(fields), 3, figsize=(13, 4.2 * len(fields)), squeeze=False, layout="constrained"
    )
    for (name, field), (rates, times, goodput) in zip(fields.items(), rows, strict=True):
        unit = "people" if name == "photos" else "crops"
        for server, seen in field["servers"].items():
            style = {"color": COLOURS[server], "label": server, "marker": "o"}
            clients = [int(number) for number in seen["closed"]]
            runs = list(seen["closed"].values())
            rates.plot(clients, [run["people_s"] for run in runs], **style)
            times.plot(clients, [run["p99_ms"] for run in runs], **style)
            best = peak(seen)
            sent = [run["offered_s"] / best for run in seen["open"].values()]
            good = [run["photos_s"] / best for run in seen["open"].values()]
            goodput.plot(sent, good, **style)
        rates.axhline(field["ceiling"]["people_s"], color="black", ls="--", label="in-process loop")
        rates.set(title=f"{name}: {unit} a second", xlabel="clients", ylim=(0, None))
        times.set(title=f"{name}: p99, ms", xlabel="clients", yscale="log")
        goodput.axhline(0.9, color="black", ls=":", label="0.9")
        goodput.set(
            title=f"{name}: goodput, of the server's own peak",
            xlabel="arrivals, of the server's own peak", xscale="log", ylim=(0, None),
        )  # fmt: skip
        for axes in (rates, times):
            axes.set_xscale("log", base=2)
            axes.set_xticks(clients, [str(number) for number in clients])
        overload = [float(number) for number in seen["open"]]
        goodput.set_xticks(overload, [f"{number:g}" for number in overload])
        for axes in (rates, times, goodput):
            axes.minorticks_off()
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
    figure.savefig(file, dpi=80)
    pyplot.close(figure)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _head(*cells: str) -> Iterator[str]:
    yield _line(*cells)
    yield "|" + "---|" * len(cells)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str]) -> None:
    """Write the report again."""
    (file,) = map(Path, arguments)
    write_report(json.loads(file.read_text()), file.parent.with_suffix(".md"))


if __name__ == "__main__":
    main(sys.argv[1:])
