"""`make event KEY=...`: a true S3 event for an object of the local stack, and what `sam local invoke` needs."""

import json
import platform as machine
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import quote_plus

import typer
import yaml
from botocore.exceptions import ClientError

from local.environment import load
from local.stack import ROOT, TOOLS, Deployed
from workflow_trigger_cli.terminal import stderr, stdout


def s3_event(bucket: str, key: str, head: dict[str, Any], sequencer: str | None = None) -> dict[str, Any]:
    """The notification that S3 would send for an object, from what HeadObject says of it.

    With the `sequencer` of the first one it is that one once more; without, it is that of an upload nobody knows of.
    """
    s3_object = {"key": quote_plus(key, safe="/"), "size": head["ContentLength"], "eTag": head["ETag"].strip('"')}
    if head.get("VersionId", "null") != "null":
        s3_object["versionId"] = head["VersionId"]
    moment = head["LastModified"].astimezone(UTC)  # the time of the upload, not of today
    s3_object["sequencer"] = sequencer or f"{int(moment.timestamp() * 1_000_000):018X}"
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        "eventName": "ObjectCreated:Put",
        "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": bucket}, "object": s3_object},
    }
    return {"Records": [record]}


def function_variables(stack: Deployed, output: str) -> dict[str, str]:
    """The environment of a deployed function, and the way to AWS that the local stack stands for."""
    found = stack.aws.client("lambda").get_function_configuration(FunctionName=stack[output])
    return {**found["Environment"]["Variables"], **stack.aws.environment}


def main(key: Annotated[str, typer.Argument(help="The object's key.")]) -> None:
    """Write `.local/event.json`, `.local/env-vars.json` and `.local/sam-local.yaml`."""
    stack = load()
    if stack is None:
        _fail("no local stack is up; start one with `make up` in another terminal")
    if not key:
        _fail("name an object of the source bucket with KEY=")
    try:
        head = stack.aws.client("s3").head_object(Bucket=stack["SourceBucket"], Key=key)
    except ClientError:
        _fail(f"there is no object {key} in {stack['SourceBucket']}; upload it first")
    event = TOOLS / "event.json"
    event.write_text(json.dumps(s3_event(stack["SourceBucket"], key, head, sequencer_of(stack, key, head)), indent=2))
    variables = TOOLS / "env-vars.json"
    variables.write_text(json.dumps({"OnUploadFunction": function_variables(stack, "OnUploadFunction")}, indent=2))
    template = _template_for_docker()
    stdout.print(f"Wrote {_short(event)}. Without Docker:\n  make invoke EVENT={_short(event)}", markup=False)
    stdout.print(
        f"With Docker:\n  sam local invoke OnUploadFunction --template {_short(template)} --event {_short(event)} "
        f"--env-vars {_short(variables)} --docker-network host",
        markup=False,
    )


def sequencer_of(stack: Deployed, key: str, head: dict[str, Any]) -> str | None:
    """That of the event which came with the upload, from its row."""
    version = head["VersionId"] if head.get("VersionId", "null") != "null" else head["ETag"].strip('"')
    rows = [row for row in stack.rows() if (row["key"], row["version"]) == (key, version)]
    return str(rows[0]["sequencer"]) if rows and "sequencer" in rows[0] else None


def _template_for_docker() -> Path:
    """The built template for `sam local invoke`, which passes on only what is declared, and runs the machine's kind."""
    built = yaml.safe_load((TOOLS / "build/template.yaml").read_text())
    function = built["Globals"]["Function"]
    function["Architectures"] = ["arm64" if machine.machine() in {"arm64", "aarch64"} else "x86_64"]
    function["Environment"]["Variables"]["AWS_ENDPOINT_URL"] = ""
    for name in ("OnUploadFunction", "OnScheduleFunction"):
        built["Resources"][name]["Properties"]["CodeUri"] = str(TOOLS / "build" / name)
    path = TOOLS / "sam-local.yaml"
    path.write_text(yaml.safe_dump(built, sort_keys=False))
    return path


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _fail(message: str) -> NoReturn:
    stderr.print(f"[bold red]make event:[/] {message}")
    raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
