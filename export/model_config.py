"""``model-config.yaml``: how TorchServe runs one model, and our own sections."""

import os

import yaml

from newshelf.config import ArchiveSettings, ModelServingSettings
from newshelf.serving.limits import ServingSettings

__all__ = ["MODEL_CONFIG", "model_config"]

MODEL_CONFIG = "model-config.yaml"

_HEAD = """\
# Written by `./run archive` from the [archive] section of the settings.
# The first keys are TorchServe's: maxBatchDelay in milliseconds, responseTimeout in
# seconds. `serving` and `limits` are read by newshelf.serving.limits.
"""


def model_config(settings: ArchiveSettings, model: ModelServingSettings) -> str:
    """The file's text, with every key of ours written out.

    Without ``deviceType``, TorchServe gives a worker a GPU when there is one.

    Args:
        settings: of all archives.
        model: of this one. ``threads = 0`` divides the cores of this machine among the
            model's workers.
    """
    serving = ServingSettings(
        runtime=settings.runtime,
        threads=model.threads or max(1, len(os.sched_getaffinity(0)) // model.workers),
        decode_threads=model.decode_threads,
    ).model_dump(mode="json")
    limits = serving.pop("limits")
    table = {
        "minWorkers": model.workers,
        "maxWorkers": model.workers,
        "batchSize": model.batch_size,
        "maxBatchDelay": model.max_batch_delay_ms,
        "responseTimeout": model.response_timeout_s,
        "jobQueueSize": model.queue_size,
        "serving": serving,
        "limits": limits,
    }
    return _HEAD + yaml.safe_dump(table, sort_keys=False)
