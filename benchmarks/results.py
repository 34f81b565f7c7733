"""The raw figures of one run, as a JSON file that the report is made from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from .measuring import Sample, Spread

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Results"]


@dataclass(slots=True)
class Results:
    """Everything that a run has measured.

    Attributes:
        kind: Which set of measurements.
        rounds: How often each was asked for.
        machine: What it ran on.
        titles: What each workload is, in the order in which they were made.
        samples: The figures.
    """

    kind: str
    rounds: int
    machine: dict[str, str]
    titles: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    def subjects(self, workload: str) -> list[str]:
        """Who was measured, in order."""
        return list(dict.fromkeys(sample.subject for sample in self.samples if sample.workload == workload))

    def values(self, workload: str, subject: str, figure: str) -> list[float]:
        """One figure over all rounds; empty where it was not measured."""
        return [sample.figures[figure] for sample in self._of(workload, subject) if figure in sample.figures]

    def spread(self, workload: str, subject: str, figure: str) -> Spread | None:
        """One figure's median and range over the rounds; None where it was not measured."""
        values = self.values(workload, subject, figure)
        return Spread.of(values) if values else None

    def cpu_s(self, workload: str, subject: str) -> dict[str, float]:
        """Median CPU seconds by group of processes."""
        rounds = [sample.cpu_s for sample in self._of(workload, subject)]
        groups = dict.fromkeys(group for cpu_s in rounds for group in cpu_s)
        return {group: Spread.of([cpu_s[group] for cpu_s in rounds if group in cpu_s]).median for group in groups}

    def ratio(self, workload: str, subject: str, rival: str, figure: str) -> Spread | None:
        """One's figure over the other's, round by round: within a round both met the machine in the same mood.

        A figure of 0, which a short run may have for CPU because the system counts it in hundredths, says nothing to divide by.
        """
        pairs = [
            sample.figures[figure] / other.figures[figure]
            for sample in self._of(workload, subject)
            for other in self._of(workload, rival)
            if sample.round == other.round and figure in sample.figures and other.figures.get(figure)
        ]
        return Spread.of(pairs) if pairs else None

    def _of(self, workload: str, subject: str) -> list[Sample]:
        return [sample for sample in self.samples if (sample.workload, sample.subject) == (workload, subject)]

    def save(self, folder: Path) -> Path:
        """Write `{kind}.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.kind}.json"
        document = {
            "kind": self.kind,
            "rounds": self.rounds,
            "machine": self.machine,
            "titles": self.titles,
            "samples": [sample.to_dict() for sample in self.samples],
        }
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        document = json.loads(path.read_text(encoding="utf-8"))
        samples = [Sample.from_dict(sample) for sample in document.pop("samples")]
        return cls(**document, samples=samples)
