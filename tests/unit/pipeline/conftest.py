"""A catalogue, sources and jobs that are small, real files all the same."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest

from newshelf.config import Settings
from newshelf.pipeline.stages import CODE, Jobs, Stages, plan_stages
from newshelf.pipeline.workspace import Workspace, open_workspace
from newshelf.rollout.versions import FIRST


@dataclass
class Shop:
    """A workspace whose jobs copy bytes instead of training."""

    workspace: Workspace
    root: Path
    settings: Settings = field(default_factory=Settings)
    done: list[str] = field(default_factory=list)
    identities: list[str] = field(default_factory=list)

    def stages(self) -> Stages:
        return plan_stages(self.workspace, self.settings, self.jobs(), root=self.root)

    def jobs(self) -> Jobs:
        def train(workspace: Workspace, settings: Settings, inputs: str, out: Path) -> None:
            self.identities.append(inputs)
            self.done.append("train")
            items = (workspace.catalog / "items.parquet").read_bytes()
            (out / "encoder.safetensors").write_bytes(items + str(settings.finetune).encode())
            events = sorted(path.name for path in workspace.catalog.glob("events.*"))
            (out / "scorer.safetensors").write_text(f"{settings.scorer} {events}")
            (out / "training.json").write_text(str(len(self.done)))

        def evaluate(workspace: Workspace, settings: Settings, out: Path) -> None:
            self.done.append("evaluate")
            (out / "report.md").write_text("fine")

        def graphs(workspace: Workspace, settings: Settings, out: Path) -> None:
            self.done.append("graphs")
            weights = (workspace.checkpoint / "encoder.safetensors").read_bytes()
            (out / "encoder.onnx").write_bytes(weights)
            shutil.copyfile(workspace.checkpoint / "scorer.safetensors", out / "scorer.onnx")
            (out / "index").mkdir()
            (out / "index" / "index.json").write_text("{}")

        def precision(workspace: Workspace, settings: Settings, out: Path) -> None:
            self.done.append("precision")
            (out / "encoder.int8.onnx").write_bytes(b"int8")

        def archive(
            workspace: Workspace, settings: Settings, source: Path, out: Path
        ) -> list[Path]:
            self.done.append("archive")
            (out / "model-card.json").write_text("{}")
            workspace.model_store.mkdir(exist_ok=True)
            label = FIRST if source == workspace.graphs else ""
            names = [f"{model}-abc{label}.mar" for model in ("encoder", "recommender")]
            for name in names:
                shutil.copyfile(source / "encoder.onnx", workspace.model_store / name)
            return [workspace.model_store / name for name in names]

        def sample(settings: Settings, out: Path) -> None:
            self.done.append("sample")
            pd.DataFrame({"id": ["a"], "title": ["ring"]}).to_parquet(out / "items.parquet")

        return Jobs(sample, train, evaluate, graphs, precision, archive)


def write_sources(root: Path) -> None:
    for patterns in CODE.values():
        for pattern in patterns:
            path = root / pattern.replace("**/*.py", "part/code.py").replace("*.py", "code.py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"VALUE = {pattern!r}\n")


@pytest.fixture
def make_shop(tmp_path: Path) -> Callable[[bool], Shop]:
    def make(sample: bool) -> Shop:
        root = tmp_path / "repository"
        write_sources(root)
        catalog = tmp_path / "My Shop"
        (catalog / "images").mkdir(parents=True)
        (catalog / "images" / "a.jpg").write_bytes(b"picture")
        pd.DataFrame({"id": ["a"], "title": ["ring"]}).to_parquet(catalog / "items.parquet")
        workspace = open_workspace(
            None if sample else catalog, model_store=tmp_path / "store", home=tmp_path / "home"
        )
        return Shop(workspace, root)

    return make


@pytest.fixture
def shop(make_shop: Callable[[bool], Shop]) -> Shop:
    return make_shop(False)
