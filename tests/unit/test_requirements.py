"""The groups of requirements, their locks, and what the serving side imports."""

import re
import subprocess
import sys
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "deploy" / "images"
CODE = ("newshelf", "handlers", "loadtest", "export")
ENTRIES = (
    "newshelf.gateway.main",
    "newshelf.gateway.app",
    "newshelf.shelf.__main__",
    "newshelf.rollout.__main__",
    "newshelf.pipeline.serve",
    "newshelf.server.torchserve",
    "handlers.encoder_handler",
    "handlers.recommender_handler",
    "handlers.launcher",
    "handlers.sitecustomize",
)
"""Programs of a server, and what TorchServe loads."""
ON_A_GPU = {
    "newshelf.nn.gpu_inputs",
    "newshelf.nn.pinned",
    "newshelf.serving.runtimes.bound",
    "newshelf.serving.runtimes.torchscript",
}
"""Modules that need torch."""
LOADS_TORCH = ON_A_GPU | {
    "handlers.adapter",
    "newshelf.serving.preprocess",
    "newshelf.serving.runtimes.onnx",
    "newshelf.serving.runtimes.base",
}
"""Modules that import torch, the further ones inside functions for a GPU."""
NOT_ON_A_SERVER = {
    "torch", "torchvision", "timm", "transformers", "triton", "onnx", "onnxscript",
    "onnxruntime-gpu", "scikit-learn", "matplotlib", "mlflow-skinny", "tensorboard", "pytest",
}  # fmt: skip


def entries(lock: Path) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of each package of a lock."""
    found = {}
    for entry in re.split(r"^(?=[a-z0-9])", lock.read_text(), flags=re.MULTILINE)[1:]:
        name, version = re.match(r"([a-z0-9-]+)==([^ ]+)", entry).groups()  # type: ignore[union-attr]
        found[name] = (version, re.findall(r"sha256:[0-9a-f]{64}", entry))
    return found


def canonical(name: str) -> str:
    """A package's name as locks write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


EVERYTHING = entries(ROOT / "requirements.lock")
SERVING = entries(IMAGES / "serving.lock")
CUDA = entries(IMAGES / "cuda.lock")


def asked_for(path: Path) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+==\S+)", path.read_text(), re.MULTILINE))


def test_every_package_is_in_one_group() -> None:
    files = [ROOT / f"requirements{group}.in" for group in ("", "-serving", "-training")]
    names = [one.partition("==")[0] for path in files for one in sorted(asked_for(path))]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("group", ["serving", "cuda"])
def test_an_image_has_what_is_tested(group: str) -> None:
    lock = entries(IMAGES / f"{group}.lock")
    for name in lock.keys() - {"onnxruntime"}:
        assert lock[name] == EVERYTHING[name]
    # The other build of the same release.
    runtime = "onnxruntime" if group == "serving" else "onnxruntime-gpu"
    assert lock[runtime][0] == EVERYTHING["onnxruntime-gpu"][0]
    assert all(hashes for _, hashes in lock.values())


def test_the_locks_have_what_their_groups_ask_for() -> None:
    groups = {name: asked_for(ROOT / f"requirements-{name}.in") for name in ("serving", "training")}
    pinned = {f"{name}=={version}" for name, (version, _) in SERVING.items()}
    assert groups["serving"] | asked_for(IMAGES / "serving.in") <= pinned
    pinned = {f"{name}=={version}" for name, (version, _) in CUDA.items()}
    assert groups["serving"] | groups["training"] <= pinned
    assert asked_for(IMAGES / "sbom.in") <= {
        f"{name}=={version}" for name, (version, _) in entries(IMAGES / "sbom.lock").items()
    }


def test_a_server_installs_nothing_that_trains_or_tests() -> None:
    assert EVERYTHING.keys() >= NOT_ON_A_SERVER
    assert NOT_ON_A_SERVER & SERVING.keys() == set()
    assert {"pytest", "mypy", "locust", "ruff"} & CUDA.keys() == set()


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """What each module of the serving side imports, also inside of functions."""
    graph = grimp.build_graph(
        *CODE, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    found: dict[str, set[str]] = {}
    left = [*ENTRIES]
    while left:
        module = left.pop()
        found[module] = graph.find_modules_directly_imported_by(module)
        ours = {name for name in found[module] if name.startswith(CODE)}
        left += ours - found.keys() - set(left)
    return found


def test_the_serving_side_imports_its_own_packages_alone(imports: dict[str, set[str]]) -> None:
    owners = packages_distributions()
    foreign: dict[str, set[str]] = {}
    for module, imported in imports.items():
        for package in {name.partition(".")[0] for name in imported}:
            if package in sys.stdlib_module_names or package in CODE:
                continue
            names = {canonical(one) for one in owners[package]}
            if not names & (SERVING.keys() | {"onnxruntime-gpu"}):
                foreign.setdefault(module, set()).add(package)
    assert {package for packages in foreign.values() for package in packages} == {
        "torch",
        "torchvision",
    }
    assert foreign.keys() == LOADS_TORCH


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages of the serving group alone, as links."""
    folder = tmp_path_factory.mktemp("serving") / "packages"
    folder.mkdir()
    for distribution in distributions():
        if canonical(distribution.name) in SERVING.keys() | {"onnxruntime-gpu"}:
            for name in {file.parts[0] for file in distribution.files or ()} - {".."}:
                place = folder / name
                if not place.is_symlink():
                    place.symlink_to(distribution.locate_file(name))
    return folder


_IMPORT = """
import importlib, sys
sys.path += sys.argv[1:3]
for module in sys.argv[3:]:
    importlib.import_module(module)
assert "torch" not in sys.modules
import handlers.sitecustomize, handlers.encoder_handler, handlers.recommender_handler
import ts.model_service_worker
"""


def test_every_module_of_the_serving_side_loads_with_its_own_packages(
    imports: dict[str, set[str]], installed: Path
) -> None:
    assert not (installed / "torch").exists()
    modules = {name for name in imports if name.startswith("newshelf")} - ON_A_GPU
    # -S: without the environment's own packages.
    command = [sys.executable, "-I", "-S", "-c", _IMPORT, str(ROOT), str(installed)]
    done = subprocess.run(
        [*command, *sorted(modules), "newshelf.cli.app"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
