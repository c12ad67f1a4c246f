"""What is installed without a checkout: the wheel with nothing but what it declares, and the packaged template."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from local.stack import ROOT, Aws, sam
from local.template import template
from workflow_trigger import __version__

EXAMPLES = ROOT / "docs/examples"


def test_command_line_installs_and_starts_with_what_it_declares(tmp_path: Path) -> None:
    folder = Path(sys.executable).parent
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def uv(*arguments: str) -> None:
        subprocess.run([folder / "uv", *arguments], env=environment, cwd=tmp_path, check=True, timeout=300)

    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, env=environment, cwd=tmp_path, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    uv("venv", "--quiet", "--python", sys.executable, str(tmp_path / "tool"))
    uv("pip", "install", "--quiet", "--python", str(tmp_path / "tool"), str(wheel))
    tool = tmp_path / "tool/bin/workflow-trigger"
    version = subprocess.run([tool, "--version"], capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60)
    assert version.stdout.strip() == __version__
    shown = subprocess.run([tool, "--help"], capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60)
    for name in (
        "status",
        "find",
        "doctor",
        "backfill",
        "retry",
        "redrive",
        "cancel",
        "pause",
        "forget",
        "report",
        "wait",
    ):
        assert name in shown.stdout
    packages = (tmp_path / "tool/lib").glob("python3.*/site-packages/*")
    names = {path.name.partition("-")[0].lower() for path in packages}
    assert {"workflow_trigger_cli", "workflow_trigger", "boto3", "typer"} <= names
    assert not {"tests", "local", "bench", "aws_lambda_powertools"} & names


# -- the packaged template ---------------------------------------------------------------------------------------------


def test_packaged_template_needs_nothing_beside_it(aws: Aws, package: Path, tmp_path: Path) -> None:
    aws.client("s3").create_bucket(Bucket="artifacts")
    packaged = tmp_path / "packaged.yaml"
    sam(
        *("package", "--template-file", str(package), "--s3-bucket", "artifacts"),
        *("--output-template-file", str(packaged)),
        environment=aws.environment,
    )
    resources, metadata = template(packaged)["Resources"], template(packaged)["Metadata"]
    functions = [each for each in resources.values() if each["Type"] == "AWS::Serverless::Function"]
    assert [each["Properties"]["CodeUri"].startswith("s3://artifacts/") for each in functions] == [True] * 3
    published = metadata["AWS::ServerlessRepo::Application"]
    assert all(published[name].startswith("s3://artifacts/") for name in ("LicenseUrl", "ReadmeUrl"))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert published["SemanticVersion"] == version
    assert {"Name", "Description", "Author", "SpdxLicenseId", "Labels"} <= set(published)  # what a publication asks for
    assert 51_200 < len((ROOT / "template.yaml").read_bytes()) < 1_000_000  # from S3, not inline


def names_in(path: Path) -> set[str]:
    """What an example calls parameters and outputs of the template: words in capitals that are texts or keys."""
    return set(re.findall(r"\b([A-Z][a-z]+(?:[A-Z][a-z]+)+)\b", re.sub(r"#.*", "", path.read_text())))


def test_examples_name_what_the_template_has() -> None:
    known = set(template()["Parameters"]) | set(template()["Outputs"]) | {"WorkflowTrigger"}
    known |= {"CfnStack", "CfnOutput", "CfnInclude"}
    for path in (EXAMPLES / "terraform/main.tf", EXAMPLES / "cdk/app.py"):
        assert {"WorkflowIds", "SourceBucket", "ApiKeySecret"} <= names_in(path) <= known, path
    ast.parse((EXAMPLES / "cdk/app.py").read_text())
    assert json.loads((EXAMPLES / "cdk/cdk.json").read_text()) == {"app": "python app.py"}
