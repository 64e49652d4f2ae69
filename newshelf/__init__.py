"""Newshelf: recommend products on the day they are first put on the shelf."""

import os
import sys
from pathlib import Path

__version__ = "0.1.0"

# Libraries that report their use to their makers, or queue reports in the home folder, unless
# they are switched off before their first import. Every process imports newshelf first.
os.environ |= {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
}
# OpenVINO has no such switch: where this package is missing, it uses a stub of its own.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
# Matplotlib's list of fonts, which otherwise goes into the home folder.
os.environ.setdefault("MPLCONFIGDIR", str(Path(__file__).parents[1] / ".newshelf" / "matplotlib"))
