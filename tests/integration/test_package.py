"""The package of the functions: complete for what the code calls, small, code only, and the same every time."""

import ast
import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from local.stack import ROOT, TOOLS, build

_LIMIT_BYTES = 4_000_000


@pytest.fixture(scope="module")
def code(package: Path) -> Path:
    """The unpacked package of on_upload."""
    return package.parent / "OnUploadFunction"


def services_in_use() -> set[str]:
    """The services that the functions make clients of."""
    tree = ast.parse((ROOT / "src/workflow_trigger/bootstrap.py").read_text())
    named = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "client"
        and isinstance(node.args[0], ast.Constant)
    }
    at_start = {
        element.value
        for node in ast.walk(tree)
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Tuple)
        for element in node.iter.elts
        if isinstance(element, ast.Constant)
    }
    return {str(name) for name in named | at_start}


def client_can_be_made(code: Path, service: str) -> bool:
    """Whether the package itself, and nothing else on this machine, can make a client of a service."""
    program = f"import sys; sys.path.insert(0, {str(code)!r}); import boto3; boto3.client({service!r}, 'us-east-1')"
    return subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, check=False).returncode == 0


def test_every_service_that_the_code_calls_is_in_the_package_and_no_other(code: Path) -> None:
    services = services_in_use()
    assert services == {"dynamodb", "events", "lambda", "s3", "secretsmanager"}
    for service in services:
        assert client_can_be_made(code, service), service
    assert not client_can_be_made(code, "sqs")
    assert {path.name for path in (code / "botocore/data").iterdir() if path.is_dir()} == services


def test_both_handlers_start_from_the_package_alone(code: Path) -> None:
    program = f"import sys; sys.path.insert(0, {str(code)!r}); import workflow_trigger.handlers"
    environment = {"POWERTOOLS_SERVICE_NAME": "s", "AWS_LAMBDA_FUNCTION_NAME": "f", "AWS_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def test_package_is_small_and_holds_nothing_but_code(code: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(code.rglob("*")):
            if path.is_file():
                archive.write(path, str(path.relative_to(code)))
    assert len(buffer.getvalue()) <= _LIMIT_BYTES
    files = [path.relative_to(code) for path in code.rglob("*") if path.is_file()]
    others = [path for path in files if path.suffix not in {".py", ".pyc"}]
    assert not [path for path in others if path.parts[0] == "workflow_trigger"]
    of_libraries = [path for path in others if not path.parts[0].endswith(".dist-info")]
    assert {path.name for path in of_libraries if path.parts[:2] != ("botocore", "data")} <= {
        *("cacert.pem", "py.typed", "dateutil-zoneinfo.tar.gz", "emscripten_fetch_worker.js")
    }
    assert not {path.name for path in code.iterdir()} & {"tests", "bin", "requirements.txt", "Makefile"}


def digests(package: Path) -> dict[str, str]:
    return {
        str(path.relative_to(package)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in package.rglob("*")
        if path.is_file()
    }


def test_two_builds_are_the_same_byte_for_byte(code: Path) -> None:
    again = build(TOOLS / "test-build-again").parent
    first = digests(code)
    assert len(first) > 500
    assert digests(again / "OnUploadFunction") == first
    assert digests(again / "OnScheduleFunction") == first
