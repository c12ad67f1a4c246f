"""The options that commands share."""

from pathlib import Path
from typing import Annotated

import typer

from workflow_trigger.domain.document import Lane

DEFAULT_STACK = "unstructured-workflow-trigger"

Name = Annotated[str, typer.Option("--stack", envvar="WORKFLOW_TRIGGER_STACK", help="Name of the stack.")]
Region = Annotated[str | None, typer.Option(help="AWS region. Default: from the AWS configuration.")]
Profile = Annotated[str | None, typer.Option(help="AWS profile. Default: from the AWS configuration.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LaneChoice = Annotated[
    Lane, typer.Option("--lane", help="fresh: with new uploads; bulk: after them, in a share of each job.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count, and change nothing.")]
CaBundle = Annotated[
    Path | None,
    typer.Option("--ca-bundle", metavar="FILE", help="Certificates (PEM) of a private authority to trust as well."),
]

RouteName = Annotated[
    str | None,
    typer.Option("--route", metavar="PREFIX", help="Only this route; '' is that of all others. Default: all routes."),
]

# Which documents.
Errors = Annotated[list[str] | None, typer.Option("--error", help="Only documents with this error.type. Repeatable.")]
Prefix = Annotated[
    str | None, typer.Option("--prefix", metavar="s3://BUCKET/PREFIX", help="Only objects under this prefix.")
]
ObjectUrl = Annotated[str | None, typer.Option("--object", metavar="s3://BUCKET/KEY", help="Only this object.")]
VersionOf = Annotated[str | None, typer.Option("--version", metavar="VERSION", help="Only this version of the object.")]
Batch = Annotated[str | None, typer.Option("--batch", metavar="NAME", help="Only documents of this batch.")]
OlderThan = Annotated[
    str | None,
    typer.Option("--older-than", metavar="AGE", help="Ended, or waiting, for at least so long: 90s, 30m, 2h, 7d."),
]
NewerThan = Annotated[
    str | None, typer.Option("--newer-than", metavar="AGE", help="Ended, or waiting, for at most so long.")
]
