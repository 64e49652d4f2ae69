"""``model-config.yaml``: how TorchServe runs one model, and our own sections."""

import yaml

from newshelf.config import ArchiveSettings, ModelServingSettings
from newshelf.errors import SetupError
from newshelf.serving.limits import ServingSettings

__all__ = ["model_config"]

_HEAD = """\
# Written by `./run archive` from the [archive] section of the settings.
# The first keys are TorchServe's: maxBatchDelay in milliseconds, responseTimeout in
# seconds. `serving` and `limits` are read by newshelf.serving.limits.
"""


def model_config(settings: ArchiveSettings, model: ModelServingSettings) -> str:
    """The file's text, with every key of ours written out.

    Without ``deviceType``, TorchServe gives a worker a GPU when there is one; what computes
    on one kind of device alone says so.

    Args:
        settings: of all archives, with runtime and precision decided.
        model: of this one. ``threads = 0`` and ``decode_threads = 0`` stay so: where the archive
            serves, they divide that machine's cores among the model's workers.

    Raises:
        SetupError: runtime or precision is ``auto``.
    """
    if settings.runtime == "auto" or settings.precision == "auto":
        raise SetupError("[archive] runtime and precision are not decided: see export.precision")
    serving = ServingSettings(
        runtime=settings.runtime,
        precision=settings.precision,
        provider=settings.provider,
        # Of workers that share the cores, whoever serves knows how many threads each has.
        preload=model.preload and model.threads <= 1,
        batch_size=model.batch_size,
        cache_bytes=model.cache_bytes,
        limits=settings.limits,
    ).model_dump(mode="json")
    serving |= {"threads": model.threads, "decode_threads": model.decode_threads}
    limits = serving.pop("limits")
    table = {
        "minWorkers": model.workers,
        "maxWorkers": model.workers,
        "batchSize": model.batch_size,
        "maxBatchDelay": model.max_batch_delay_ms,
        "responseTimeout": model.response_timeout_s,
        "jobQueueSize": model.queue_size,
        **_device_type(settings),
        "serving": serving,
        "limits": limits,
    }
    return _HEAD + yaml.safe_dump(table, sort_keys=False)


def _device_type(settings: ArchiveSettings) -> dict[str, str]:
    if settings.runtime == "openvino" or settings.precision == "int8":
        return {"deviceType": "cpu"}
    return {"deviceType": "gpu"} if settings.precision in ("fp16", "bf16") else {}
