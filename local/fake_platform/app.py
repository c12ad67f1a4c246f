"""A simulated Unstructured platform: the vendor's HTTP API with its oddities, and faults on demand.

Alone: `python -m local.fake_platform.app --port 8000`. What is under `/_simulation` steers it and shows what it got.
"""

import asyncio
import contextlib
import json
import re
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import batched, chain
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
import uvicorn
from fastapi import Depends, FastAPI, File, Header, HTTPException, Request, Response, UploadFile
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse

from local.fake_platform.contract import CreateWorkflow, JobInformation
from local.fake_platform.faults import Faults, answer_of, faulty
from local.fake_platform.state import Behaviour, Fault, PlatformState, SimulatedJob

BUSY = {"detail": "There is a running job in progress. No new job run."}

type Key = Annotated[str | None, Header(alias="unstructured-api-key")]


def create_app(state: PlatformState) -> FastAPI:
    """The platform's HTTP API over a state."""
    app = FastAPI(title="Platform API", version="3.1.0", openapi_url="/openapi.json")
    _add_runs(app, state)
    _add_jobs(app, state)
    _add_steering(app, state)
    app.add_middleware(Faults, state=state)
    return app


# -- the vendor's API --------------------------------------------------------------------------------------------------


def _check_key(state: PlatformState) -> Callable[[Key], None]:
    def check(key: Key = None) -> None:
        if not key:
            raise HTTPException(401, "API key is missing, please provide it in the unstructured-api-key header")
        if key != state.behaviour.api_key:
            raise HTTPException(401, "API key is malformed, please type the API key correctly in the header.")

    return check


def _add_runs(app: FastAPI, state: PlatformState) -> None:
    check = _check_key(state)

    @app.post(
        "/api/v1/workflows/{workflow_id}/run",
        status_code=202,
        response_model=JobInformation,
        operation_id="run_workflow",
        tags=["workflows"],
        summary="Run Workflow",
        description="Run a workflow by triggering a new job if none is currently active.",
    )
    async def run_workflow(
        request: Request,
        workflow_id: UUID,
        input_files: Annotated[list[UploadFile] | None, File()] = None,
        unstructured_api_key: Annotated[str | None, Header()] = None,
    ) -> Response:
        check(unstructured_api_key)
        if not state.knows(str(workflow_id)):
            raise HTTPException(404, "Not Found")
        names = [file.filename or "" for file in input_files or []]
        fault = state.take_fault("run", str(workflow_id), names)
        if fault is not None and fault.kind == "status":
            return answer_of(fault)
        if fault is not None and fault.kind == "drop":
            request.scope["ending"] = "drop"
            return JSONResponse({})
        if fault is not None and fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
        files = [
            await asyncio.to_thread(state.store, file.filename or "", file.content_type, file.file)
            for file in input_files or []
        ]
        if fault is not None and fault.kind == "late":
            state.late.append((state.clock() + fault.seconds, str(workflow_id), files))
            request.scope["ending"] = "drop"
            return JSONResponse({})
        job = state.start(str(workflow_id), files, **(fault.job if fault is not None else {}))
        if job is None:
            return JSONResponse(BUSY, 202)
        if fault is not None and fault.kind == "answer-after":
            return answer_of(fault)
        if fault is not None and fault.kind in {"drop-after", "truncate"}:
            request.scope["ending"] = fault.kind.removesuffix("-after")
        return JSONResponse(state.information(job, posted=True, files=True), 202)

    @app.post("/api/v1/workflows/")
    async def create_workflow(wanted: CreateWorkflow, unstructured_api_key: Key = None) -> dict[str, Any]:
        check(unstructured_api_key)
        key = wanted.key or re.sub(r"[^a-z0-9]+", "-", wanted.name.lower()).strip("-")[:63]  # derived from the name
        made: dict[str, Any] = {"id": str(uuid.uuid4()), "name": wanted.name, "key": key, "status": "active"}
        made |= {"sources": [wanted.source_id] if wanted.source_id else [], "destinations": [], "schedule": None}
        made |= {"workflow_type": wanted.workflow_type, "workflow_nodes": wanted.workflow_nodes or []}
        made |= {"created_at": datetime.fromtimestamp(state.clock(), UTC).isoformat()}
        if wanted.schedule:
            made["schedule"] = {"crontab_entries": [{"cron_expression": wanted.schedule}]}
        state.workflows[made["id"]] = made
        state.behaviour.workflow_keys[key] = made["id"]
        return made

    @app.get("/api/v1/workflows/")
    async def list_workflows(
        page: int = 1, page_size: int = 20, unstructured_api_key: Key = None
    ) -> list[dict[str, Any]]:
        check(unstructured_api_key)
        return list(state.workflows.values())[(page - 1) * page_size : page * page_size]

    @app.get("/api/v1/workflows/{workflow_id}")
    async def get_workflow(workflow_id: str, unstructured_api_key: Key = None) -> dict[str, Any]:
        check(unstructured_api_key)
        found = state.id_of(workflow_id)
        if not state.knows(found):
            raise HTTPException(404, "Not Found")
        if found in state.workflows:
            return state.workflows[found]
        name = f"workflow-{found[:8]}"
        return {"id": found, "name": name, "sources": [], "destinations": [], "status": "active"}


def _add_jobs(app: FastAPI, state: PlatformState) -> None:
    check = _check_key(state)

    def find(job_id: str) -> SimulatedJob:
        state.accept_late()
        job = state.jobs.get(job_id)
        if job is None or job.vanished or state.behaviour.is_another_workspace:
            raise HTTPException(404, "Not Found")
        return job

    async def allowed(request: Request, unstructured_api_key: Key = None) -> None:
        check(unstructured_api_key)
        name = request.url.path.rstrip("/").rpartition("/")[2]
        names = {"details", "failed-files", "file-status", "download", "jobs"}
        fault = await faulty(state, request, name if name in names else "job")
        if fault is not None:
            raise _Instead(fault)

    @app.exception_handler(_Instead)
    async def instead(_request: Request, error: Exception) -> Response:
        return error.args[0] if isinstance(error, _Instead) else Response(status_code=500)

    guarded = [Depends(allowed)]

    @app.get("/api/v1/jobs/", dependencies=guarded)
    async def list_jobs(workflow_id: str | None = None, status: str | None = None) -> Response:
        state.accept_late()
        now = state.clock()
        behaviour = state.behaviour
        asked_for = None if behaviour.ignores_filter else status
        if asked_for is None:
            await asyncio.sleep(behaviour.list_seconds)
        shown = [
            state.information(job, posted=False, files=behaviour.list_shows_files)
            for job in list(state.jobs.values())
            if workflow_id in {None, job.workflow_id}
            and asked_for in {None, job.job_status(now)}
            and job.listed_from <= now
            and not job.vanished
            and not behaviour.is_another_workspace
        ]
        earlier = state.earlier_jobs(workflow_id or "") if asked_for in {None, "COMPLETED"} else iter(())
        return StreamingResponse(_json_array(shown, earlier), media_type="application/json")

    @app.get("/api/v1/jobs/{job_id}", dependencies=guarded)
    async def get_job(job_id: str) -> dict[str, Any]:
        return state.information(find(job_id), posted=False, files=state.behaviour.get_shows_files)

    @app.get("/api/v1/jobs/{job_id}/details", dependencies=guarded)
    async def get_details(job_id: str) -> dict[str, Any]:
        job = find(job_id)
        status = job.processing_status(state.clock())
        stats = {"ready": 0, "in_progress": 0, "success": len(job.files) - len(job.failed), "failure": len(job.failed)}
        node = {"node_name": "Partitioner", "node_type": "partition", "node_subtype": "vlm", **stats}
        summary = job.summary if status == job.ending else None
        return {"id": job.id, "processing_status": status, "node_stats": [node], "summary": summary, "message": None}

    @app.get("/api/v1/jobs/{job_id}/failed-files", dependencies=guarded)
    async def get_failed_files(job_id: str) -> dict[str, Any]:
        job = find(job_id)
        failed = job.failed if job.names_hidden_until <= state.clock() else {}
        return {"failed_files": [{"document": name, "error": error} for name, error in failed.items()]}

    @app.get("/api/v1/jobs/{job_id}/file-status", dependencies=guarded)
    async def get_file_status(job_id: str) -> dict[str, Any]:
        job = find(job_id)
        if not state.behaviour.has_file_status:
            raise HTTPException(404, "Not Found")
        told = {"COMPLETED": "SUCCESS", "FAILED": "FAILURE", "STOPPED": "READY"}
        is_known = not job.is_active(state.clock()) and job.names_hidden_until <= state.clock()
        files = [
            {
                "record_id": file.file_id,
                "document": file.filename,
                "status": told[job.truth(file)] if is_known else "IN_PROGRESS",
                "error": job.failed.get(file.filename) if is_known else None,
            }
            for file in job.files
        ]
        return {"files": files, "truncated": False, "index_finished": True}

    @app.post("/api/v1/jobs/{job_id}/cancel", dependencies=guarded)
    async def cancel(job_id: str) -> dict[str, Any]:
        job = find(job_id)
        job.stopped_at = state.clock() if job.is_active(state.clock()) else job.stopped_at
        return {"id": job.id, "status": "STOPPED"}

    @app.get("/api/v1/jobs/{job_id}/download", dependencies=guarded)
    async def download(job_id: str, file_id: str, node_id: str | None = None) -> Response:
        job = find(job_id)
        file = next((each for each in job.files if each.file_id == file_id), None)
        if file is None or not state.has_output(job, file, node_id):
            raise HTTPException(404, "Not Found")
        elements = _at_least(state.behaviour.output_bytes, output_of(file.sha256, node_id or ""))
        return Response(elements, media_type="application/json")


def _at_least(size_bytes: int, elements: list[dict[str, Any]]) -> str:
    """Elements as JSON; where that is too short, with one more. White space would be no output."""
    missing = size_bytes - len(json.dumps(elements))
    return json.dumps([*elements, {"type": "NarrativeText", "text": "x" * missing}] if missing > 0 else elements)


def _json_array(first: list[dict[str, Any]], rest: Iterator[str]) -> Iterator[bytes]:
    """A list of any length, a piece at a time."""
    entries = chain(map(json.dumps, first), rest)
    separator = "["
    for few in batched(entries, 50, strict=False):
        yield (separator + ",".join(few)).encode()
        separator = ","
    yield b"[]" if separator == "[" else b"]"


class _Instead(Exception):
    """Carries the answer of a fault out of a dependency."""


def output_of(sha256: str, node_id: str) -> list[dict[str, Any]]:
    """The elements that processing makes of a file; they name it by its digest."""
    return [{"type": "NarrativeText", "element_id": f"{sha256[:16]}-{node_id[:8]}", "text": f"text of {sha256}"}]


# -- steering ----------------------------------------------------------------------------------------------------------


def _add_steering(app: FastAPI, state: PlatformState) -> None:
    @app.get("/_simulation/jobs", include_in_schema=False)
    async def jobs() -> list[dict[str, Any]]:
        return [{**asdict(job), "truth": [job.truth(file) for file in job.files]} for job in list(state.jobs.values())]

    @app.post("/_simulation/faults", include_in_schema=False)
    async def add_faults(faults: list[Fault]) -> None:
        state.faults.extend(faults)

    @app.patch("/_simulation/behaviour", include_in_schema=False)
    async def behave(changes: dict[str, Any]) -> None:
        state.behaviour = replace(state.behaviour, **changes)

    @app.get("/_simulation/files/{name}", include_in_schema=False)
    async def file(name: str) -> FileResponse:
        path = state.folder / Path(name).name
        if not path.is_file():
            raise HTTPException(404, "Not Found")
        return FileResponse(path)


# -- servers -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(state: PlatformState, *, port: int = 0, tls: tuple[Path, Path] | None = None) -> Iterator[str]:
    """Serve a state from a thread of this process; gives its address. `tls`: files of the certificate and its key."""
    listener = socket.create_server(("127.0.0.1", port), backlog=512)
    # Without it an answer waits for the acknowledgement of its own first half, 40 ms on Linux.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        create_app(state),
        log_level="critical",
        access_log=False,
        lifespan="off",
        date_header=False,
        ssl_certfile=tls and str(tls[0]),
        ssl_keyfile=tls and str(tls[1]),
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = True
        if server.server_state.tasks:  # else its thread is left to end, which takes a fifth of a second
            thread.join(timeout=10)


def main(
    port: Annotated[int, typer.Option(help="Port of 127.0.0.1.")] = 8000,
    api_key: Annotated[str, typer.Option(help="The key that is accepted.")] = "local-key",
    job_seconds: Annotated[float, typer.Option(help="How long a job takes.")] = 5.0,
    folder: Annotated[Path | None, typer.Option(help="Where received files are kept; else a temporary folder.")] = None,
) -> None:
    """Run the simulated platform until it is interrupted."""
    with tempfile.TemporaryDirectory() as temporary:
        kept = folder or Path(temporary)
        kept.mkdir(parents=True, exist_ok=True)
        state = PlatformState(kept, Behaviour(api_key=api_key, default_job_seconds=job_seconds))
        typer.echo(f"Simulated platform: http://127.0.0.1:{port}  key: {api_key}  files: {kept}")
        uvicorn.run(create_app(state), host="127.0.0.1", port=port, log_level="info")


if __name__ == "__main__":
    typer.run(main)
