"""What a worker does without: torch on the CPU (some 260 MB), and what only others use."""

import subprocess
import sys

_CODE = """
import io, sys
import numpy as np
import newshelf.serving.encoder_predictor
import newshelf.serving.recommender_predictor
import newshelf.serving.runtimes.onnx
from PIL import Image
from newshelf.catalog.schema import Product
from newshelf.nn.spec import AttributeInput, EncoderSpec, FusionSpec, ImageInput
from newshelf.serving.encode import Encoding, ProductEncoder
from newshelf.serving.preprocess import InputBuilder, open_reader
from newshelf.serving.products import ProductInput
from newshelf.serving.runtimes.base import Device
from newshelf.serving.trace import StageTimer

image = ImageInput(architecture="any", features=1, size=8, mean=(0, 0, 0), std=(1, 1, 1))
spec = EncoderSpec(
    image=image, text=None, attributes=AttributeInput(), fusion=FusionSpec(), labels={}
)

class Ones:
    def run(self, inputs):
        return {"embedding": np.ones((len(inputs["attributes"]), 512), dtype=np.float32)}

encoder = ProductEncoder(
    spec, Ones(), InputBuilder(spec, None),
    open_reader(image, Device(), max_pixels=1000, threads=2),
    max_forward_batch=8, max_forward_pictures=8,
)
stream = io.BytesIO()
Image.new("RGB", (30, 20)).save(stream, "JPEG")
inputs = [ProductInput(Product(), stream.getvalue(), "")] * 3
assert all(isinstance(result, Encoding) for result in encoder.encode(inputs, StageTimer()))
print(sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "torchvision")))
"""


def test_pictures_are_encoded_without_torch():
    done = subprocess.run(
        [sys.executable, "-c", _CODE], capture_output=True, check=False, text=True
    )
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"


def test_an_encoder_is_loaded_without_the_recommenders_libraries():
    code = (
        "import sys, newshelf.serving.encoder_predictor\n"
        "print([name for name in ('scipy', 'newshelf.serving.index') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"
