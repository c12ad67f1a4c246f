"""How long the functions take to start, and how large and how repeatable their package is."""

import hashlib
import io
import platform
import re
import statistics
import time
import zipfile
from collections import defaultdict
from pathlib import Path

from bench.report import Check, Section, plot, progress
from local.invoke import runtime
from local.stack import ROOT, TOOLS, build, sam

VARIABLES = {
    "UNSTRUCTURED_API_URL": "http://127.0.0.1:1",
    "WORKFLOW_IDS": "w",
    "API_KEY_SECRET_ARN": "s",
    "LEDGER_TABLE": "l",
    "WORKFLOWS_TABLE": "w",
    "POWERTOOLS_SERVICE_NAME": "bench",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
}
NAMES = {
    "ours: on_upload": "ours, as deployed: on_upload",
    "ours: on_schedule": "ours, as deployed: on_schedule",
    "floor": "boto3 with two clients and a Logger, by plain `sam build`",
    "sdk": "the same and the vendor's SDK, by plain `sam build`",
}


def init_ms(package: Path, handler: str) -> float:
    """What the runtime reports of one start."""
    with runtime(package, handler, VARIABLES) as function:
        answer = function.invoke({"Event": "s3:TestEvent"})
        if isinstance(answer, dict) and str(answer.get("errorType")).startswith("Runtime."):
            raise RuntimeError(answer)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            found = re.search(r"INIT REPORT\(durationMs: ([\d.]+)\)", function.log())
            if found:
                return float(found[1])
            time.sleep(0.05)
    raise RuntimeError(f"no INIT REPORT of {package}")


def digest(package: Path) -> str:
    """Every name and every byte of a package."""
    sums = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file():
            sums.update(f"{path.relative_to(package)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return sums.hexdigest()


def zipped_bytes(package: Path) -> int:
    """The size of what is uploaded."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(package.rglob("*")):
            if path.is_file():
                archive.write(path, str(path.relative_to(package)))
    return len(buffer.getvalue())


def measure(repeats: int) -> Section:
    """Starts by turns."""
    ours, again, others = (TOOLS / f"bench-{name}" for name in ("ours", "again", "others"))
    for folder in (ours, again):
        build(folder)
    architecture = {"aarch64": "arm64"}.get(platform.machine(), "x86_64")
    template = str(ROOT / "bench/packages/template.yaml")
    sam(
        "build",
        "--template",
        template,
        "--build-dir",
        str(others),
        "--parameter-overrides",
        f"Architecture={architecture}",
    )
    packages = {
        "ours: on_upload": (ours / "OnUploadFunction", "workflow_trigger.handlers.on_upload"),
        "ours: on_schedule": (ours / "OnScheduleFunction", "workflow_trigger.handlers.on_schedule"),
        "floor": (others / "Floor", "app.handler"),
        "sdk": (others / "Sdk", "app.handler"),
    }
    runs = defaultdict(list)
    for number in range(repeats):
        progress(f"start: {number + 1} of {repeats}")
        for name, (package, handler) in packages.items():
            runs[name].append(init_ms(package, handler))
    starts = {name: statistics.median(each) for name, each in runs.items()}
    sizes = {name: zipped_bytes(package) / 1e6 for name, (package, _) in packages.items()}
    is_same = digest(ours / "OnUploadFunction") == digest(again / "OnUploadFunction")
    section = Section(
        name="start",
        title="Start and size",
        how=f"`INIT REPORT` of the real Lambda runtime (the one of `sam local invoke`), medians of {repeats} starts by "
        "turns; bytecode cannot be written next to the code, as in Lambda. Ours makes its S3, DynamoDB and Secrets "
        "Manager "
        "clients while it starts.",
        header=["", "start, ms", "zipped, MB"],
        rows=[[NAMES[name], f"{starts[name]:.0f}", f"{sizes[name]:.2f}"] for name in packages],
        data={"init_ms": runs, "zipped_mb": sizes},
    )
    slower = max(starts["ours: on_upload"], starts["ours: on_schedule"])
    section.checks = [
        Check(
            "time of a start, in times of a function with boto3 and a Logger alone",
            slower / starts["floor"],
            0.55,
        ),
        Check("time of a start, in times of a function with the vendor's SDK", slower / starts["sdk"], 0.25),
        Check("zipped package (MB)", sizes["ours: on_upload"], 4),
        Check("two builds are the same, byte for byte (1: yes)", float(is_same), 1, at_most=False),
    ]

    def draw(axes: object) -> None:
        axes.barh(list(starts), list(starts.values()), color=["#2a7", "#2a7", "#999", "#999"])  # type: ignore[attr-defined]
        axes.invert_yaxis()  # type: ignore[attr-defined]
        axes.set(xlabel="ms", title="Start of a function (INIT)")  # type: ignore[attr-defined]

    section.picture = plot("start", draw)
    return section
