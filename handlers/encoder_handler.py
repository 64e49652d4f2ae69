"""TorchServe's adapter of the encoder; everything else is in ``newshelf.serving``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ts.metrics.metric_type_enum import MetricTypes

from newshelf.serving.isolate import predict_isolated
from newshelf.serving.limits import ServingSettings
from newshelf.serving.load import choose_device, load_encoder_predictor
from newshelf.serving.observe import Recorder
from newshelf.serving.protocol import Predictor, RawRequest


class EncoderHandler:
    """Answers ``POST /predictions/encoder``, one status and body per row of the batch."""

    predictor: Predictor

    def initialize(self, context: Any) -> None:
        """Load what the archive holds onto the device that the server assigned."""
        self.recorder = Recorder()
        self.predictor = load_encoder_predictor(
            Path(context.system_properties["model_dir"]),
            device=choose_device(context.system_properties.get("gpu_id")),
            settings=ServingSettings.from_model_config(context.model_yaml_config),
            observer=self.recorder,
        )
        self.recorder.drain()

    def handle(self, data: Sequence[Mapping[str, object]], context: Any) -> list[bytes]:
        """Answer a batch; never raises, so one bad row costs only itself."""
        rows = [
            RawRequest.from_http(
                parts, context.get_all_request_header(at), context.get_request_id(at) or ""
            )
            for at, parts in enumerate(data)
        ]
        answers = predict_isolated(self.predictor, rows)
        for at, answer in enumerate(answers):
            context.set_response_status(code=answer.status, idx=at)
            context.set_response_content_type(at, "application/json")
        for metric, value in self.recorder.drain():
            context.metrics.add_metric(
                metric.name, value, metric.unit, dimensions=[], metric_type=MetricTypes.HISTOGRAM
            )
        return [answer.body for answer in answers]
