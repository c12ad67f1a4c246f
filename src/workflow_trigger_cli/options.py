"""The options that commands share."""

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
