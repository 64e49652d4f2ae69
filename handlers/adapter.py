"""The base class of the handlers: a batch of requests in, one status and JSON body each out."""

import gc
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from ts.metrics.metric_type_enum import MetricTypes

from handlers.torchserve_patches import read_in_blocks, write_metrics_at_once
from newshelf.serving.model_config import read_model_config
from newshelf.serving.protocol import Predictor, RawRequest, predict_isolated
from newshelf.serving.runtimes.base import Device
from newshelf.serving.settings import ServingSettings
from newshelf.serving.trace import SPANS_HEADER, RecordingObserver, wants_trace, write_trace

LOST_GPU = 70
"""Exit code of a worker whose GPU is lost to it."""
_LOG = logging.getLogger(__name__)


def end_with_lost_gpu(device: Device) -> None:
    """End this process if every further call on its GPU would fail.

    So it is after a failed assertion on the device, an illegal address or an error of its memory;
    TorchServe starts another worker, whose context is a new one.
    """
    if device.kind == "cpu":
        return
    import torch  # noqa: PLC0415

    try:
        torch.cuda.synchronize(device.index)
    except RuntimeError:
        _LOG.critical("%s is lost to this process, which ends", device, exc_info=True)
        # An exception would be taken for a request's, and libraries hang in their clean-up.
        os._exit(LOST_GPU)


class Adapter(ABC):
    """Translates between TorchServe and a predictor; a handler says which predictor."""

    predictor: Predictor
    recorder: RecordingObserver
    _device: Device = Device()
    _preloaded: ClassVar["Adapter | None"] = None
    """What this process was forked with."""

    @abstractmethod
    def load(self, directory: Path, **options: Any) -> Predictor:
        """Load the predictor from an unpacked archive.

        Args:
            directory: the archive.
            options: ``device``, ``settings`` and ``observer`` of the model's loader.
        """

    @classmethod
    def preload(cls, directory: Path) -> None:
        """Load an unpacked archive onto the CPU, for the workers that are forked from here."""
        loaded = cls()
        loaded._open(directory, None, read_model_config(directory))
        cls._preloaded = loaded

    def initialize(self, context: Any) -> None:
        """Load what the archive holds onto the device that the server assigned."""
        write_metrics_at_once()
        read_in_blocks()
        device = context.system_properties.get("gpu_id")
        if self._preloaded is not None and device is None:
            self.predictor, self.recorder = self._preloaded.predictor, self._preloaded.recorder
            return
        directory = Path(context.system_properties["model_dir"])
        self._open(directory, device, context.model_yaml_config)
        # A collection of all that was loaded would hold up a request for a tenth of a second.
        gc.collect()
        gc.freeze()

    def _open(
        self, directory: Path, gpu: int | str | None, config: Mapping[str, object] | None
    ) -> None:
        self.recorder = RecordingObserver()
        settings = ServingSettings.from_model_config(config)
        if gpu is not None:
            # Archives of earlier versions leave a worker the whole of it.
            self._device = Device("cuda", int(gpu), settings.gpu_memory or 1.0)
        self.predictor = self.load(
            directory, device=self._device, settings=settings, observer=self.recorder
        )
        # The warm-up is nobody's request.
        self.recorder.drain()
        self.recorder.drain_spans()

    def handle(self, data: Sequence[Mapping[str, object]], context: Any) -> list[bytes]:
        """Answer a batch; never raises, so one bad row costs only itself."""
        start_ns = time.perf_counter_ns()
        headers = [context.get_all_request_header(at) for at in range(len(data))]
        rows = [
            RawRequest.from_http(parts, headers[at], context.get_request_id(at) or "")
            for at, parts in enumerate(data)
        ]
        answers = predict_isolated(self.predictor, rows, partial(end_with_lost_gpu, self._device))
        for at, answer in enumerate(answers):
            context.set_response_status(code=answer.status, idx=at)
            context.set_response_content_type(at, "application/json")
        self._tell_metrics(context)
        self._tell_spans(context, headers, start_ns)
        return [answer.body for answer in answers]

    def _tell_metrics(self, context: Any) -> None:
        for metric, value in self.recorder.drain():
            # Not add_metric: it would send the ids of all requests along, which nobody reads.
            told = context.metrics.get_metric(metric.name, MetricTypes(metric.kind))
            told.add_or_update(value, [context.model_name, "Model"])

    def _tell_spans(
        self, context: Any, headers: Sequence[Mapping[str, object]], start_ns: int
    ) -> None:
        spans = self.recorder.drain_spans()
        asking = [at for at, row in enumerate(headers) if wants_trace(row)]
        if asking:
            told = write_trace(os.getpid(), len(headers), start_ns, spans)
            for at in asking:
                context.set_response_header(at, SPANS_HEADER, told)
