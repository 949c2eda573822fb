"""What the numbers hold for: device, precision, images, weights, versions."""

from pipeline.measured import Document, Metrics
from pipeline.wording import DASH, number, percent

TIMED = "transfer, resize, normalisation, passes, proxy, decision, answer on the host; not the decoding"


def list_conditions(metrics: Metrics) -> list[tuple[str, str]]:
    """What the numbers hold for, as (name, value); every value is known or an en dash."""
    environment = metrics.environment
    sizes_px = environment.get("sizes_px", {})
    versions = environment.get("versions", {})
    return [
        ("device", _device(environment)),
        ("processor", _joined(environment, "processor")),
        ("threads", f"{_joined(environment, 'threads')} (of {_joined(environment, 'cores')} cores)"),
        ("backend", _joined(environment, "backend")),
        ("precision", describe_precision(environment)),
        ("batch", _joined(environment, "batch_size")),
        ("resolutions", ", ".join(f"{role} {size_px} px" for role, size_px in sizes_px.items()) or DASH),
        ("images", _image_counts(metrics.fit)),
        ("weights", _weights(environment)),
        (
            "versions",
            ", ".join([f"python {environment.get('python', DASH)}", *map(" ".join, versions.items())]),
        ),
        ("system", _joined(environment, "os")),
        *_intervals(metrics),
        *_seeds(environment),
        ("timed", TIMED),
        ("commit", _joined(environment, "commit")),
    ]


def describe_precision(document: Document) -> str:
    """Of the passes, from what says `precision` and may say `low_precision`."""
    low = document.get("low_precision")
    return _joined(document, "precision") + (f" (low: {low})" if low else "")


def _joined(document: Document, *keys: str) -> str:
    return ", ".join(str(document[key]) for key in keys if document.get(key)) or DASH


def _device(environment: Document) -> str:
    """With the GPU's name only where it did the work."""
    on_gpu = str(environment.get("device", "")).startswith("cuda")
    return _joined(environment, *(("device", "gpu") if on_gpu else ("device",)))


def _image_counts(fit: Document) -> str:
    splits = ("calibration", "evaluation")
    return ", ".join(f"{number(fit.get(split, {}).get('images'), 0)} {split}" for split in splits)


def _intervals(metrics: Metrics) -> list[tuple[str, str]]:
    """How sure they are; empty for a run that did not note it."""
    replayed = [item["confidence"] for item in metrics.replay.values() if "confidence" in item]
    if "confidence" not in metrics.fit or not replayed:
        return []
    return [
        ("intervals", f"{percent(replayed[0])} of times, {percent(metrics.fit['confidence'])} of the rest")
    ]


def _seeds(environment: Document) -> list[tuple[str, str]]:
    """Empty for a run that did not note them."""
    seeds = environment.get("seeds")
    return [("seeds", ", ".join(f"{name} {seed}" for name, seed in seeds.items()))] if seeds else []


def _weights(environment: Document) -> str:
    digest = environment.get("weights_sha256", "")
    return _joined(environment, "weights") + (f" (sha256 {digest[:12]})" if digest else "")
