"""`docs/workflow.schema.json`, which editors use to check workflow files, made of the models that read them."""

from __future__ import annotations

import json

from interlock.client.authoring.yaml_file import json_schema

__all__ = ["render"]


def render() -> str:
    """The schema as the text of its file."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
