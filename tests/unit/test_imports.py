"""What is imported, and how long things are. That imports point one way is import-linter's business (`make check`)."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from statistics import median

import workflow_trigger
from local.stack import ROOT

FOLDER = Path(workflow_trigger.__file__).parent
CORE_LINES, ALL_LINES = 3_348, 6_395


def test_budget_of_lines_is_kept() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in FOLDER.rglob("*.py")}
    core = sum(count for path, count in lines.items() if {"domain", "services"} & set(path.parts))
    assert core <= CORE_LINES
    assert sum(lines.values()) <= ALL_LINES


def functions() -> list[int]:
    """The length of every function's body, its docstring left out."""
    nodes = [node for path in FOLDER.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    found = []
    for node in nodes:
        if isinstance(node, ast.FunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            found.append((node.end_lineno or 0) - first.lineno + 1)
    return found


def test_functions_are_short() -> None:
    assert median(functions()) <= 8
    assert max(functions()) <= 40


def test_names_of_tests_are_short() -> None:
    nodes = [node for path in (ROOT / "tests").rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    names = [node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert [name for name in names if len(name) > 70] == []
    assert len(names) > 300


# Fields, paths and parts of the vendor's API that no attribute of the ledger is called by.
VENDOR_NAMES = (
    *("processing_status", "failed_files", "index_finished", "truncated", "total_docs", "retry_after", "input_files"),
    *("unstructured-api-key", "/jobs/", "failed-files", "file-status", "node_stats", "workflow_nodes"),
)


# Its words for how a job or a file stands. The ledger's statuses, in the model, are called by some of them.
VENDOR_STATUSES = {"SCHEDULED", "IN_PROGRESS", "COMPLETED", "STOPPED", "FAILED"}
VENDOR_STATUSES |= {"SUCCESS", "COMPLETED_WITH_ERRORS", "FAILURE"}


def test_the_vendors_api_is_named_in_its_adapter_alone() -> None:
    """In strings; a docstring may say where something comes from."""
    found = set()
    for path in FOLDER.rglob("*.py"):
        tree = ast.parse(path.read_text())
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                found |= {(path.parent.name, name) for name in VENDOR_NAMES if name in node.value}
                if node.value in VENDOR_STATUSES and path.name != "model.py":
                    found.add((path.parent.name, node.value))
    assert {folder for folder, _ in found} == {"unstructured"}


def test_attribute_names_stand_in_the_mapping_alone() -> None:
    """Those of the ledger that no field of the domain and no answer of the platform is called by."""
    own = (
        "strikes",
        "accepted_count_then",
        "not_before",
        "setbacks",
        "baseline",
        "queue_at",
        "expires_at",
        "of_workflow",
    )
    naming = {
        path.name for path in FOLDER.rglob("*.py") for name in own if re.search(rf"[\"']{name}[\"']", path.read_text())
    }
    assert naming <= {"mapping.py", "ledger.py"}


def packages_imported_by(*folders: Path) -> set[str]:
    found: set[str] = set()
    for path in (path for folder in folders for path in folder.rglob("*.py")):
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
    found = packages_imported_by(ROOT / "src/workflow_trigger_cli") | {"urllib3"}  # which the two packages share
    shared = {"botocore", "workflow_trigger", "workflow_trigger_cli"}
    assert declared <= found
    assert found <= declared | shared


def test_tests_do_not_see_the_aws_settings_of_the_machine() -> None:
    program = (
        "import os, tests.conftest; print(sorted(n for n in os.environ if n.startswith(('AWS_', 'UNSTRUCTURED_'))))"
    )
    machine = {"AWS_PROFILE": "mine", "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "UNSTRUCTURED_API_KEY": "secret"}
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **machine}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    ours = ["AWS_ACCESS_KEY_ID", "AWS_CONFIG_FILE", "AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED"]
    assert ast.literal_eval(done.stdout) == [*ours, "AWS_SECRET_ACCESS_KEY", "AWS_SHARED_CREDENTIALS_FILE"]
