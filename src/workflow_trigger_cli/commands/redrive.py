"""`redrive`: show why dead letters could not be registered, and move them back to the upload queue.

A message is deleted only after its copy is in the upload queue: interrupted in between it is there twice, and an event
that comes twice changes nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from workflow_trigger.adapters.s3_events import ParsedEvent
from workflow_trigger_cli.errors import CommandError
from workflow_trigger_cli.stack import Stack

_AT_ONCE = 10
_HIDDEN_SECONDS = 600
_ROUNDS = 3
_SHOWN_TEXT = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """A message, the objects that it names, and what cannot be read in it (nothing: registering it failed)."""

    message_id: str
    objects: list[str]
    unreadable: list[str]
    body: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """How many went back, and how many stay because they never could be read."""

    moved: int
    kept: list[DeadLetter]


def redrive(stack: Stack, *, include_unreadable: bool, progress: Callable[[], None]) -> Moved:
    """Move what is there; what cannot be read stays, for it would only come back.

    Raises:
        CommandError: the upload queue did not take a message; it is still among the dead letters.
    """
    sqs = stack.client("sqs")
    queue = stack["DeadLetterQueueUrl"]
    moved = 0
    kept: list[DeadLetter] = []
    held: set[str] = set()  # receipt handles of what was received and is not moved
    try:
        for message in _received(sqs, queue, held):
            letter = _opened(message)
            if letter.unreadable and not include_unreadable:
                kept.append(letter)
            else:
                _move(sqs, stack, message)
                held.discard(message["ReceiptHandle"])
                moved += 1
            progress()
    finally:  # they can be seen again at once, also after an interruption; after ten minutes they can anyway
        for handle in held:
            with suppress(sqs.exceptions.MessageNotInflight, sqs.exceptions.ReceiptHandleIsInvalid):
                sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=handle, VisibilityTimeout=0)
    return Moved(moved=moved, kept=kept)


def _received(sqs: Any, queue: str, held: set[str]) -> Iterator[dict[str, Any]]:
    """Every message once, until none comes, or a few times only such as were seen: those are kept."""
    seen: set[str] = set()
    nothing_new = 0
    while nothing_new < _ROUNDS:
        answer = sqs.receive_message(
            QueueUrl=queue, MaxNumberOfMessages=_AT_ONCE, VisibilityTimeout=_HIDDEN_SECONDS, WaitTimeSeconds=1
        )
        messages = answer.get("Messages", [])
        held |= {each["ReceiptHandle"] for each in messages}
        if not messages:
            return
        fresh = [each for each in messages if each["MessageId"] not in seen]
        nothing_new = 0 if fresh else nothing_new + 1
        seen |= {each["MessageId"] for each in fresh}
        yield from fresh


def _opened(message: dict[str, Any]) -> DeadLetter:
    parsed = ParsedEvent.of(message["Body"])
    return DeadLetter(
        message_id=message["MessageId"],
        objects=[version.document_key.object for version in parsed.versions],
        unreadable=parsed.unreadable,
        body=message["Body"][:_SHOWN_TEXT],
    )


def _move(sqs: Any, stack: Stack, message: dict[str, Any]) -> None:
    try:
        sqs.send_message(QueueUrl=stack["UploadQueueUrl"], MessageBody=message["Body"])
    except sqs.exceptions.ClientError as error:
        raise CommandError(f"The upload queue did not take message {message['MessageId']}: {error}") from error
    sqs.delete_message(QueueUrl=stack["DeadLetterQueueUrl"], ReceiptHandle=message["ReceiptHandle"])
