"""The template as data."""

import functools
from pathlib import Path
from typing import Any

import yaml

from local.stack import ROOT


class _CloudFormation(yaml.CSafeLoader):
    """Reads short forms such as !Ref as plain values."""


def _short_form(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type]
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


_CloudFormation.add_multi_constructor("!", _short_form)


@functools.cache
def template(path: Path = ROOT / "template.yaml") -> dict[str, Any]:
    """The template, its short forms as CloudFormation's long ones. Read once: nobody changes it."""
    loaded: dict[str, Any] = yaml.load(path.read_text(), Loader=_CloudFormation)
    return loaded
