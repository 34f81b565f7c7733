"""What the figures were measured on, without anything that tells whose machine it is."""

from __future__ import annotations

import os
import platform
import statistics
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile

import psutil

__all__ = ["describe", "flush_ms", "load_average"]

_PACKAGES = ("celery", "kombu", "redis", "sqlalchemy", "psycopg")


def describe() -> dict[str, str]:
    """The machine, by what matters for speed."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "Python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        "load average when it began": load_average(),
    }


def load_average() -> str:
    """Of the last minute; what others do on the machine is in every figure."""
    return f"{os.getloadavg()[0]:.1f}"


def flush_ms(folder: Path, times: int = 20) -> float:
    """Median milliseconds of writing 8 KiB and flushing them, which every commit waits for; others may use the disk."""
    taken = []
    with TemporaryFile(dir=folder) as file:
        for _ in range(times):
            begun = time.perf_counter()
            file.write(b"x" * 8192)
            file.flush()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1000


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
