"""Small fabricated metrics and tables, as the stages would leave them."""

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from PIL import Image

from pipeline.files import sha256_of
from pipeline.tables import DELTAS, IMAGES, REPLAY, write_table

SCRIPT = "<script>alert(1)</script>"
IDS = ["val/a.JPEG", "val/b.JPEG", f"val/{SCRIPT}.JPEG", "val/d.JPEG", "val/e.JPEG", "val/f.JPEG"]
DELTA_VALUES = [0.5, 2.5, 3.5, 1.0, 0.25, 2.0]
CLASSES = [["n01", "goldfish"], ["n02", f"tabby {SCRIPT}"]]


def policy_metrics(mean_ms: float, rate: float, agreement: float, **more: float) -> dict[str, Any]:
    latency_ms = {"mean": mean_ms, "p50": mean_ms - 0.1, "p90": mean_ms + 1}
    return {
        "latency_ms": latency_ms,
        "images_per_s": 1000 / mean_ms,
        "peak_memory_mb": 61.8,
        "escalation_rate": rate,
        "agreement": agreement,
        **more,
    }


def scenario_metrics(**changes: Any) -> dict[str, Any]:
    """low 2.5 ms, high 10 ms, 10 % escalated: the ideal is 3.5 ms, or 2.86×; measured 4 ms, 2.5×."""
    return {
        "static_low": policy_metrics(2.5, 0.0, 0.8),
        "static_high": policy_metrics(10.0, 1.0, 1.0),
        "adaptive": policy_metrics(4.0, 0.1, 0.875),
        "random": {"escalation_rate": 0.1, "agreement": 0.82},
        "oracle": {"escalation_rate": 0.1, "agreement": 0.9},
        "speedup_vs_static_high": {"median": 2.5, "ci_low": 2.4, "ci_high": 2.6},
        "speedup_bound": 1 / 0.35,
        "overhead_vs_ideal": 1.143,
        "overhead_ci_low": 1.1,
        "overhead_ci_high": 1.2,
        "stable": 1,
        "within_bound": 1,
        "images": 2000,
        "blocks": 80,
        "decision_agreement": 1.0,
    } | changes


ENGINE = {
    "images": 256,
    "tolerance": 0.05,
    "largest_error": 0.012,
    "within_tolerance": 1,
    "decision_agreement": 0.995,
}


def fit_metrics(**changes: Any) -> dict[str, Any]:
    return {
        "threshold": 0.75,
        "direction": 1,
        "threshold_proxy": 0.75,
        "threshold_oracle": 2.25,
        "calibration": {"images": 3, "escalation_rate": 0.1, "spearman": 0.5},
        "evaluation": {
            "images": 3000,
            "escalation_rate": 0.1,
            "agreement": 0.875,
            "random_agreement": 0.82,
            "oracle_agreement": 0.9,
            "agreement_over_random": {"value": 0.055, "ci_low": 0.04, "ci_high": 0.07},
            "gain_over_random": {"value": 0.4, "ci_low": 0.3, "ci_high": 0.5},
        },
        "beats_random": 1,
    } | changes


ENVIRONMENT = {
    "device": "cpu",
    "processor": "Test CPU",
    "cores": 4,
    "threads": 2,
    "backend": "eager",
    "precision": "float32",
    "batch_size": 64,
    "python": "3.12.1",
    "os": "Linux",
    "versions": {"torch": "2.15.0", "timm": "1.0.31"},
    "weights": "random",
    "weights_sha256": "0123456789abcdef",
    "sizes_px": {"low": 32, "mid": 48, "high": 64},
    "commit": "fedcba9876543210",
}
PROFILE = {
    role: {
        "size_px": size_px,
        "tokens": (size_px // 4) ** 2 + 1,
        "latency_ms": {"mean": cost_ms, "p50": cost_ms, "p90": cost_ms},
        "gflops": cost_ms / 4,
        "parameters": 5_400_000,
        "peak_memory_mb": 30,
    }
    for role, size_px, cost_ms in (("low", 32, 2.5), ("high", 64, 10.0))
} | {"latency_ratio": 4.0, "flops_ratio": 4.2}
EXTRACT = {
    "images": 6,
    "batch_size": 64,
    "reader": {"images_per_s": 9000},
    "forward": {"images_per_s": 400},
    "writer": {"images_per_s": 5000},
    "total": {"images_per_s": 350, "wall_s": 11.5},
    "peak_memory_mb": 500,
    "resumed_images": 0,
    "out_of_memory_halvings": 0,
}
DELTA = {
    "images": 6,
    "delta": {"mean": 1.6, "std": 1.1, "p50": 1.5, "p90": 3.0, "p99": 3.4, "max": 3.5},
    "agreement": 0.5,
}
POLICY = {
    "oracle": "delta",
    "proxy": "cls_change",
    "direction": 1,
    "threshold": 0.75,
    "calibration": {"kind": "isotonic", "x": [0.0, 1.0], "y": [0.0, 3.0]},
    "rule": "escalation_rate",
    "value": 0.1,
}


def write_metrics(folder: Path, **documents: dict[str, Any] | None) -> Path:
    """The metrics folder; `replay=...` replaces a document, `profile=None` leaves it out."""
    found = {
        "replay": {"single_stream": scenario_metrics(), "engine": ENGINE},
        "fit": fit_metrics(),
        "environment": ENVIRONMENT,
        "delta": DELTA,
    } | documents
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in found.items():
        if document is not None:
            (folder / f"{name}.json").write_text(json.dumps(document))
    return folder


def write_plots(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame({"delta": [0.5, 1.5, 2.5, 3.5], "images": [2, 1, 2, 1]}).write_csv(
        folder / "delta_histogram.csv"
    )
    proxies = [0.1, 0.7, 0.9, 0.4, 0.05, 0.5]
    pl.DataFrame(
        {
            "image_id": IDS,
            "proxy": proxies,
            "delta": DELTA_VALUES,
            "expected": [3 * proxy for proxy in proxies],
            "escalated": [proxy > 0.75 for proxy in proxies],
        }
    ).write_csv(folder / "proxy_delta.csv")
    rates = [rate / 100 for rate in range(101)]
    pl.DataFrame(
        {
            "escalation_rate": rates,
            "proxy": [0.8 + 0.2 * rate**0.5 for rate in rates],
            "random": [0.8 + 0.2 * rate for rate in rates],
            "oracle": [min(1.0, 0.8 + rate) for rate in rates],
        }
    ).write_csv(folder / "deferral.csv")
    ranks = list(range(101))
    pl.DataFrame(
        {
            "percentile": ranks,
            "static_low": [2 + rank / 100 for rank in ranks],
            "static_high": [9 + rank / 50 for rank in ranks],
            "adaptive": [2.2 + rank / 100 + (8 if rank > 90 else 0) for rank in ranks],
        }
    ).write_csv(folder / "latency.csv")
    few = [rate / 10 for rate in range(11)]
    pl.DataFrame(
        {
            "escalation_rate": few,
            "threshold": [None, *(1 - rate for rate in few[1:-1]), None],
            "latency_ms": [2 + 9 * rate for rate in few],
            **{f"agreement_{order}": [0.8 + 0.2 * rate for rate in few] for order in ("random", "oracle")},
            "agreement_proxy": [0.8 + 0.2 * rate**0.5 for rate in few],
            "pareto": [1] * 10 + [0],
            "knee": [0, 0, 1] + [0] * 8,
        }
    ).write_csv(folder / "frontier.csv")


def tiny_jpeg(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 80, 200 - shade)).save(stream, "JPEG")
    return stream.getvalue()


def write_tables(folder: Path) -> None:
    """Six images in two classes; the deltas are those of DELTA_VALUES, in another order than the images."""
    labels = [0, 1, 1, 0, 0, 1]
    splits = ["calibration", "evaluation"] * 3
    images = {
        "image_id": IDS,
        "split": splits,
        "wnid": [CLASSES[label][0] for label in labels],
        "label": labels,
        "jpeg": [tiny_jpeg(30 * index) for index in range(6)],
    }
    deltas = {
        "image_id": IDS,
        "split": splits,
        "label": labels,
        "delta": DELTA_VALUES,
        "delta_relative": DELTA_VALUES,
        "cosine": [0.5] * 6,
        "top1_low": [0, 1, 0, 0, 0, 0],
        "top1_high": [0, 0, 1, 0, 0, 1],
        "agree": [True, False, False, True, True, False],
        "low_correct": [None] * 6,
        "high_correct": [None] * 6,
    }
    write_table(folder / "images.parquet", pa.table(images, schema=IMAGES), {"classes": CLASSES})
    write_table(folder / "deltas.parquet", pa.table(deltas, schema=DELTAS).take([5, 3, 1, 0, 2, 4]), {})


def write_policy(root: Path, **changes: Any) -> None:
    """And the replay that ran it."""
    path = root / "models" / "policy.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(POLICY | changes))
    replay = {
        "image_id": IDS[1::2],
        "scenario": ["single_stream"] * 3,
        "policy": ["adaptive"] * 3,
        "latency_ms": [12.0, 3.0, 3.0],
        "escalated": [True, False, False],
        "top1": [0, 0, 1],
    }
    ran = {"policy_sha256": sha256_of(path)}
    write_table(root / "data" / "replay.parquet", pa.table(replay, schema=REPLAY), ran)


def write_project(root: Path, **documents: dict[str, Any] | None) -> Path:
    """Everything that the report reads, under `root` as dvc.yaml has it."""
    write_plots(write_metrics(root / "metrics", **documents) / "plots")
    write_tables(root / "data")
    write_policy(root)
    (root / "params.yaml").write_text("report: {gallery_images: 2}\nreplay: {}\n")
    return root
