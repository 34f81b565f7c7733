"""The plan of the audit: list, parse in 64 shards at once, join, analyse three ways, report.

```
            ┌─ parse-00 ─┐            ┌─ complexity ────┐
    list ───┼─ …         ┼── collect ─┼─ imports ───────┼── report
            └─ parse-63 ─┘            └─ documentation ─┘
```

Steps get earlier results by `{"$expr": …}`, a JMESPath expression over `input` and `results`. The
input may name the report's file, `{"out": "audit.html"}`; a path that is not absolute is taken from
the worker's folder.
"""

from __future__ import annotations

from interlock import Step, Workflow

from . import tasks

SHARDS = 64
DEFAULT_OUT = "build/stdlib-audit/report.html"

PARSE_KEYS = tuple(f"parse-{number:02d}" for number in range(SHARDS))
ANALYSES = ("complexity", "imports", "documentation")


def _expr(expression: str) -> dict[str, str]:
    return {"$expr": expression}


def _parts() -> str:
    """Builds the list of all parts; the quotes are JMESPath's, for keys with a hyphen."""
    return "[{}]".format(", ".join(f'results."{key}"' for key in PARSE_KEYS))


FINDINGS = """{
    python: results.list.python,
    root: results.list.root,
    totals: results.collect.totals,
    packages: results.collect.packages,
    refused: results.collect.refused,
    complexity: results.complexity,
    imports: results.imports,
    documentation: results.documentation
}"""

workflow = Workflow(
    "stdlib-audit",
    "Audit Python's own standard library",
    [
        Step("list", tasks.list_packages, args=(SHARDS,)),
        *(
            Step(
                key,
                tasks.audit_shard,
                args=(_expr(f"results.list.shards[{number}]"),),
                after=("list",),
            )
            for number, key in enumerate(PARSE_KEYS)
        ),
        Step(
            "collect",
            tasks.merge_metrics,
            args=(_expr(_parts()),),
            kwargs={"expected_modules": _expr("results.list.modules")},
            after=("list", *PARSE_KEYS),
        ),
        Step(
            "complexity",
            tasks.analyse_complexity,
            kwargs={
                "modules": _expr("results.collect.modules"),
                "bands": _expr("results.collect.bands"),
                "functions": _expr("results.collect.complex"),
                "longest": _expr("results.collect.long"),
            },
            after=("collect",),
        ),
        Step(
            "imports",
            tasks.analyse_imports,
            args=(_expr("results.collect.imports"),),
            after=("collect",),
        ),
        Step(
            "documentation",
            tasks.analyse_documentation,
            args=(_expr("results.collect.packages"), _expr("results.collect.totals")),
            after=("collect",),
        ),
        Step(
            "report",
            tasks.write_report,
            args=(_expr(FINDINGS), _expr(f"input.out || '{DEFAULT_OUT}'")),
            after=("list", "collect", *ANALYSES),
        ),
    ],
)
