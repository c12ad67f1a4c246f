"""`make docs`: the tables of the documentation that are made from the code and the template."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.stack import ROOT
from local.template import template
from workflow_trigger.domain.retry import POLICIES
from workflow_trigger_cli import advice
from workflow_trigger_cli.advice import Advice

FOLDER = ROOT / "docs"
_PLACES = {
    "stack": "NAME",
    "object": "s3://BUCKET/KEY",
    "version": "VERSION",
    "set_key": "(the output SetApiKeyCommand)",
}


def pages() -> dict[Path, str]:
    """Every page that has such tables, with the tables as they should be."""
    advices = {"statuses": _advice(advice.OF_STATUS, "status"), "errors": _advice(advice.OF_ERROR, "type")}
    tables = {
        FOLDER / "operations.md": advices,
        FOLDER / "failures.md": {"policies": _policies()},
        FOLDER / "parameters.md": {"parameters": _parameters()},
    }
    return {path: _with_tables(path.read_text(), own) for path, own in tables.items()}


def _with_tables(text: str, tables: Mapping[str, str]) -> str:
    for name, table in tables.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        text = f"{before}{mark}{table}\n{end}{after}"
    return text


def _advice(entries: Mapping[Any, Advice], what: str) -> str:
    """What a status or an error means, and what to type."""

    def todo(each: Advice) -> str:
        typed = f"`{each.type.format(**_PLACES)}`" if each.type else ""
        return ": ".join(filter(None, (each.do, typed))) or "nothing"

    rows = [f"| `{name}` | {each.meaning} | {todo(each)} |" for name, each in entries.items()]
    return "\n".join([f"| {what} | it means | what to type |", "|---|---|---|", *rows])


def _policies() -> str:
    """What every failure means."""
    rows = [
        f"| `{kind.__name__}` | {(kind.__doc__ or '').rstrip('.')} | {each.documents} | {each.workflow} | {each.ends} |"
        for kind, each in POLICIES.items()
    ]
    head = ["| `error.type` | what came back | documents | workflow | end |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])


def _parameters() -> str:
    """The parameters of the template, by their groups."""
    found = template()
    rows = []
    for group in found["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]:
        rows += ["", f"## {group['Label']['default']}", "", "| parameter | default | meaning |", "|---|---|---|"]
        for name in group["Parameters"]:
            parameter = found["Parameters"][name]
            default = f"`{parameter['Default']}`" if parameter.get("Default", "") != "" else ""
            allowed = " to ".join(str(parameter[each]) for each in ("MinValue", "MaxValue") if each in parameter)
            meaning = parameter["Description"].strip() + (f" ({allowed})" if allowed else "")
            rows.append(f"| `{name}` | {default} | {meaning} |")
    return "\n".join(rows).strip()


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
