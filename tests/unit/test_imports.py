"""Imports point one way: handlers → use cases → adapters → model."""

import ast
import sys
import tomllib
from pathlib import Path

import workflow_trigger
from local.stack import ROOT

LAYERS = [
    {"errors", "clock"},
    {"objects", "multipart", "settings"},
    {"job"},
    {"model"},
    {"decisions", "items", "notifications", "api_key", "source", "platform_answers"},
    {"line", "tables"},
    {"announce", "ledger", "platform_api"},
    {"invocation", "results", "moves"},
    {"late"},
    {"attempt", "follow"},
    {"submit"},
    {"reconcile"},
    {"handlers"},
]
FOLDER = Path(workflow_trigger.__file__).parent


def imported_by(path: Path) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    names = [f"{node.module}.{alias.name}" for node in nodes for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("workflow_trigger.")}


def test_every_module_has_its_layer_and_imports_only_lower_ones() -> None:
    layer_of = {name: number for number, names in enumerate(LAYERS) for name in names}
    modules = {path.stem: imported_by(path) for path in FOLDER.glob("*.py") if path.stem != "__init__"}
    assert set(modules) == set(layer_of)
    wrong = [(name, other) for name, others in modules.items() for other in others if layer_of[other] >= layer_of[name]]
    assert wrong == []


def packages_imported_by(*folders: Path) -> set[str]:
    found: set[str] = set()
    for path in (path for folder in folders for path in folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
    return found - set(sys.stdlib_module_names)


def test_the_declared_packages_are_imported_and_no_others() -> None:
    lines = (ROOT / "src/requirements.in").read_text().split()
    declared = {line.replace("-", "_") for line in lines}
    assert declared == {"boto3", "urllib3", "aws_lambda_powertools"}
    types_only = {"mypy_boto3_dynamodb", "mypy_boto3_events", "mypy_boto3_s3", "mypy_boto3_secretsmanager"}
    found = packages_imported_by(FOLDER)
    assert declared <= found
    assert found <= declared | types_only | {"botocore", "workflow_trigger"}


def test_what_the_command_line_declares_is_imported_and_nothing_else() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    found = packages_imported_by(ROOT / "ops") | {"urllib3"}  # by the way to the platform, which it shares
    shared = {"botocore", "workflow_trigger", "ops"}
    assert declared <= found
    assert found - shared <= declared
