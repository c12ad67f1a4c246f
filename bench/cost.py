"""What it costs: the measured calls and milliseconds, turned into dollars by prices that are data."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report import RESULTS, Section, plot

PRICES: dict[str, Any] = json.loads((Path(__file__).parent / "prices.json").read_text())
VOLUMES = (0, 1, 10_000, 1_000_000)
MINUTES = 30 * 24 * 60

MEMORY_GB = 256 / 1024
JOB_SECONDS = 120.0
FILES_PER_JOB = {1: 1, 10_000: 10, 1_000_000: 10}
POOL = {0: 1, 1: 1, 10_000: 1, 1_000_000: 10}
IDLE_RUN_SECONDS = 0.5  # the schedule with nothing to do, with a margin
BUSY_RUN_SECONDS = 62.0  # until the next run has taken over
OUTPUTS = 2  # of a file
LOG_BYTES_PER_FILE = 2_500
LOG_BYTES_PER_MINUTE = 1_200
ROW_BYTES = 1_800
SLOWNESS = 6.0  # a function of 256 MB has about a sixth of a processor
S3_AND_PLATFORM_SECONDS = 1.0  # a batch's transfer, for documents of a megabyte or a few
METRICS = 15
DOCUMENT_GB = 0.001
MONTHS_KEPT = 12
_COLOURS = 10  # before they begin again


@dataclass(frozen=True, slots=True)
class Bill:
    """Dollars a month."""

    files: int
    items: dict[str, float]

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.items.values())

    @property
    def per_thousand(self) -> float | None:
        """For 1,000 files."""
        return self.total / self.files * 1_000 if self.files else None


def bill(files: int, work: dict[str, dict[str, float]]) -> Bill:
    """A month with so many files."""
    batch = FILES_PER_JOB.get(files, 1)
    each = work["one file" if batch == 1 else "ten, 10,000 waiting"]
    jobs = files / batch
    busy_minutes = min(MINUTES, jobs * (JOB_SECONDS + 10) / 60 / POOL[files] + (1 if files else 0))
    polls = jobs * JOB_SECONDS / 10
    upload_seconds = each["cpu_ms"] / 1_000 * SLOWNESS + S3_AND_PLATFORM_SECONDS / batch
    schedule_seconds = busy_minutes * BUSY_RUN_SECONDS + (MINUTES - busy_minutes) * IDLE_RUN_SECONDS
    reads = files * 4 + polls + MINUTES * 8
    items = {
        "Lambda: uploads": files * upload_seconds * MEMORY_GB * PRICES["lambda_gb_second_arm64"]
        + files / batch * PRICES["lambda_request"],
        "Lambda: every minute": schedule_seconds * MEMORY_GB * PRICES["lambda_gb_second_arm64"]
        + MINUTES * PRICES["lambda_request"],
        "DynamoDB: writes": files * each["write_units"] * PRICES["dynamodb_write_unit"],
        "DynamoDB: reads": reads * PRICES["dynamodb_read_unit"],
        "DynamoDB: rows kept for a year": files
        * MONTHS_KEPT
        * ROW_BYTES
        / 1e9
        * (PRICES["dynamodb_gb_month"] + PRICES["dynamodb_backup_gb_month"]),
        "S3: requests": files * (PRICES["s3_get"] + OUTPUTS * PRICES["s3_put"]),
        "SQS": files * 3 * PRICES["sqs_request"] + MINUTES * 3 * 5 * PRICES["sqs_request"],
        "EventBridge": files * PRICES["eventbridge_event"] + MINUTES * PRICES["scheduler_invocation"],
        "CloudWatch: logs": (files * LOG_BYTES_PER_FILE + MINUTES * LOG_BYTES_PER_MINUTE) / 1e9 * PRICES["logs_gb"],
        "CloudWatch: metrics": (METRICS if files > 1 else 2) * PRICES["metric_month"],
        "Secrets Manager": PRICES["secret_month"],
        "Documents out to the internet": files * DOCUMENT_GB * PRICES["internet_out_gb"],
    }
    return Bill(files, items)


def measure() -> Section:
    """Bills from the work that was measured last."""
    path = RESULTS / "work.json"
    if not path.is_file():
        raise FileNotFoundError("The work for each file has not been measured yet: make bench ONLY=work")
    work = json.loads(path.read_text())["data"]
    bills = [bill(files, work) for files in VOLUMES]
    names = list(bills[0].items)
    section = Section(
        name="cost",
        title="Money",
        how=f"Dollars a month in {PRICES['region']}, without free tiers, from the calls, write units and processor "
        "time above and the prices of `bench/prices.json`, which tells where each is from (none was read off AWS's own "
        f"list). Assumed: {MEMORY_GB * 1024:.0f} MB a function and a sixth of a processor with it, jobs of "
        f"{JOB_SECONDS:.0f} s, ten files a job but for the single one, a pool of {POOL[1_000_000]} workflows for a "
        f"million files, {OUTPUTS} outputs a file, rows kept for a year, no VPC, no alarms "
        f"({PRICES['alarm_month']:.2f} each), documents of {DOCUMENT_GB * 1_000:.0f} MB, the dashboard "
        "among the three that are free. Storage of documents and outputs, and the platform itself, are not in it.",
        header=["", *("an idle month" if not each.files else f"{each.files:,} a month" for each in bills)],
        rows=[
            *([name, *(f"{each.items[name]:,.2f}" for each in bills)] for name in names),
            ["**in all**", *(f"**{each.total:,.2f}**" for each in bills)],
            [
                "for 1,000 files",
                *(
                    "" if each.per_thousand is None or each.files < 1_000 else f"{each.per_thousand:,.3f}"
                    for each in bills
                ),
            ],
        ],
        data={"bills": [{"files": each.files, "items": each.items, "total": each.total} for each in bills]},
    )

    def draw(axes: Any) -> None:
        labels = ["idle" if not each.files else f"{each.files:,}" for each in bills]
        bottom = [0.0] * len(bills)
        for number, name in enumerate(names):
            heights = [each.items[name] for each in bills]
            hatch = "//" if number >= _COLOURS else None
            axes.bar(labels, heights, bottom=bottom, label=name, hatch=hatch)
            bottom = [low + high for low, high in zip(bottom, heights, strict=True)]
        axes.set(ylabel="dollars a month", xlabel="files a month", title="Money")
        axes.legend(frameon=False, fontsize=7)

    section.picture = plot("cost", draw)
    return section
