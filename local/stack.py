"""The local stack: MiniStack in a process of its own, and the real template deployed to it by `sam`."""

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import boto3
import urllib3
from botocore.config import Config

from local import child_process
from workflow_trigger.adapters.dynamodb.mapping import deserialize

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".local"
REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}
_START_SECONDS = 60


class LocalStackError(Exception):
    """Something about the local stack failed; the message is for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Aws:
    """A way to MiniStack: clients that know its address."""

    endpoint: str
    signature: ClassVar[Any] = None  # botocore's own

    @functools.cache  # noqa: B019  a client takes longer to make than most calls take; there are few of them
    def client(self, service: str) -> Any:
        """A boto3 client, made once."""
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=50,
            user_agent="local",
            signature_version=self.signature,
        )
        return boto3.client(  # type: ignore[call-overload]
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            config=config,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What another program needs in its environment to talk to MiniStack."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses right now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _bare_environment(**more: str) -> dict[str, str]:
    """A minimal environment: the function workers inherit it, so a variable that the template lacks must be missing."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL")
    return {name: os.environ[name] for name in kept if name in os.environ} | more


@contextlib.contextmanager
def ministack(
    *, port: int | None = None, options: Mapping[str, str] | None = None, ca_bundle: Path | None = None
) -> Iterator[Aws]:
    """MiniStack on a port of 127.0.0.1, ended and cleared away afterwards. With a CA bundle it is asked by TLS.

    Raises:
        LocalStackError: the port is taken, or MiniStack does not come up.
    """
    port = port or free_port()
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        raise LocalStackError(
            f"Port {port} of 127.0.0.1 is taken; end what listens there, or choose another with PORT="
        )
    folder = tempfile.mkdtemp(prefix="ministack-")
    environment = _bare_environment(
        GATEWAY_PORT=str(port),
        BIND_HOST="127.0.0.1",
        IOT_MTLS_ENABLED="0",
        TMPDIR=folder,
        LOG_LEVEL="INFO",
        **CREDENTIALS,
        **(options or {}),
    )
    log = TOOLS / f"ministack-{port}.log"
    with log.open("w") as output:
        process = child_process.start(
            [str(TOOLS / "ministack/bin/python"), "-m", "ministack"],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"{'https' if ca_bundle else 'http'}://127.0.0.1:{port}"
        _await_health(process, url, log, ca_bundle)
        yield Aws(url)
    finally:
        child_process.end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _await_health(process: subprocess.Popen[bytes], url: str, log: Path, ca_bundle: Path | None) -> None:
    pool = urllib3.PoolManager(ca_certs=str(ca_bundle) if ca_bundle else None)
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            if pool.request("GET", f"{url}/_ministack/health", retries=False, timeout=2).status == 200:
                return
        time.sleep(0.1)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise LocalStackError(f"MiniStack did not start at {url}:\n{tail}")


def chosen_port() -> int | None:
    """The port that `PORT=` names, if it names one.

    Raises:
        LocalStackError: it is not a port.
    """
    text = os.environ.get("PORT", "")
    if not text:
        return None
    if not text.isdigit() or not 1024 <= int(text) <= 65535:
        raise LocalStackError(f"PORT={text} is not a port from 1024 to 65535")
    return int(text)


# -- sam ---------------------------------------------------------------------------------------------------------------


def sam(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run the AWS SAM CLI.

    Raises:
        LocalStackError: with the lines of its output that say why.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [TOOLS / "sam/bin/sam", *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "SAM_CLI_TELEMETRY": "0", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        telling = [line for line in lines if "rror" in line or "FAILED" in line or "ailed" in line]
        raise LocalStackError(f"sam {arguments[0]} failed:\n" + "\n".join((telling or lines)[-8:]))
    return done.stdout


def build(folder: Path) -> Path:
    """`sam build`; returns the built template."""
    sam("build", "--build-dir", str(folder))
    return folder / "template.yaml"


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployed stack, by its outputs."""

    name: str
    aws: Aws
    outputs: Mapping[str, str]

    def __getitem__(self, output: str) -> str:
        """The value of an output."""
        return self.outputs[output]

    def rows(self, prefix: str = "") -> list[dict[str, Any]]:
        """The rows of the ledger whose keys begin so; batches, which are there as well, have no status."""
        pages = (
            self.aws.client("dynamodb")
            .get_paginator("scan")
            .paginate(
                TableName=self["LedgerTable"],
                ConsistentRead=True,
                FilterExpression="attribute_exists(#status) AND begins_with(#key, :prefix)",
                ExpressionAttributeNames={"#status": "status", "#key": "key"},
                ExpressionAttributeValues={":prefix": {"S": prefix}},
            )
        )
        return [deserialize(item) for page in pages for item in page["Items"]]

    def set_key(self, key: str) -> None:
        """What the output SetApiKeyCommand does."""
        self.aws.client("secretsmanager").put_secret_value(SecretId=self["ApiKeySecret"], SecretString=key)

    def tick(self) -> None:
        """Fire the schedule now, without waiting for the minute."""
        self.aws.client("lambda").invoke(FunctionName=self["OnScheduleFunction"], InvocationType="Event", Payload=b"{}")


def deploy(
    template: Path,
    aws: Aws,
    parameters: Mapping[str, str],
    *,
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Deployed:
    """`sam deploy` of a built template, as the shipped samconfig.toml says."""
    name = name or f"local-{uuid.uuid4().hex[:8]}"
    sam(
        "deploy",
        "--template-file",
        str(template),
        "--config-file",
        str(ROOT / "samconfig.toml"),
        "--stack-name",
        name,
        "--parameter-overrides",
        # In quotes, as a person has to type a value with spaces or semicolons.
        *(f'{key}="{value}"' for key, value in parameters.items()),
        *(["--tags", *(f"{key}={value}" for key, value in tags.items())] if tags else []),
        environment=aws.environment,
    )
    (stack,) = aws.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    return Deployed(name, aws, {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]})
