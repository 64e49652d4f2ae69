import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grimp
import pandas as pd
import pytest
from rich.console import Console

from newshelf.config import Settings
from newshelf.pipeline.stages import (
    CODE,
    SHARED_CODE,
    Stage,
    archive_paths,
    bring_up_to_date,
    build,
    output_id,
    why_stale,
)

ROOT = Path(__file__).resolve().parents[3]
ALL = ["train", "graphs", "precision", "export", "archive"]
JOBS = [name for name in ALL if name != "export"]
"""The export only links what others have made."""
Shop = Any


def update(shop: Shop, last: str = "archive") -> tuple[list[str], str]:
    """The stages that were made, and what was printed."""
    printed = io.StringIO()
    made = bring_up_to_date(shop.stages().up_to(last), Console(file=printed, width=200))
    return made, printed.getvalue()


def stage(shop: Shop, name: str) -> Stage:
    found = getattr(shop.stages(), name)
    assert isinstance(found, Stage)
    return found


def test_stages_are_built_once_and_reused(shop: Shop) -> None:
    made, printed = update(shop)
    assert (made, shop.done) == (ALL, JOBS)
    assert "train: not made yet" in printed
    again, printed = update(shop)
    assert again == []
    assert "train: current" in printed
    assert shop.done == JOBS


def test_the_sample_is_drawn_before_training_on_it(make_shop: Callable[[bool], Shop]) -> None:
    shop = make_shop(True)
    assert update(shop)[0] == ["sample", *ALL]
    assert update(shop)[0] == []
    assert (shop.workspace.catalog / "items.parquet").is_file()


def test_a_changed_table_is_the_reason(shop: Shop) -> None:
    update(shop)
    pd.DataFrame({"id": ["b"], "title": ["scarf"]}).to_parquet(
        shop.workspace.catalog / "items.parquet"
    )
    assert why_stale(stage(shop, "train")) == "the catalogue changed (items.parquet)"
    assert update(shop)[0] == ALL


def test_a_new_table_and_a_changed_picture_are_reasons(shop: Shop) -> None:
    update(shop)
    (shop.workspace.catalog / "events.csv").write_text("user_id,item_id,event_type,timestamp\n")
    (shop.workspace.catalog / "images" / "a.jpg").write_bytes(b"another picture")
    reason = why_stale(stage(shop, "train"))
    assert reason == "the catalogue changed (new: events.csv, pictures)"


def test_tables_of_every_container_count(shop: Shop) -> None:
    update(shop)
    (shop.workspace.catalog / "Events.JSONL.gz").write_bytes(b"{}")
    assert why_stale(stage(shop, "train")) == "the catalogue changed (new: Events.JSONL.gz)"


def test_a_removed_table_is_the_reason(shop: Shop) -> None:
    events = shop.workspace.catalog / "events.csv"
    events.write_text("user_id,item_id,event_type,timestamp\n")
    update(shop)
    events.unlink()
    assert why_stale(stage(shop, "train")) == "the catalogue changed (gone: events.csv)"


def test_files_that_are_no_part_of_the_catalogue_do_not_count(shop: Shop) -> None:
    update(shop)
    (shop.workspace.catalog / "README.txt").write_text("notes")
    assert update(shop)[0] == []


def test_the_reason_names_both_values_of_a_changed_setting(shop: Shop) -> None:
    update(shop)
    shop.settings = Settings.model_validate({"finetune": {"epochs": 3}})
    assert why_stale(stage(shop, "train")) == "settings changed (finetune.epochs: 12 → 3)"


def test_a_stage_depends_on_its_own_settings_only(shop: Shop) -> None:
    update(shop)
    shop.settings = Settings.model_validate({"archive": {"runtime": "torchscript"}})
    made, printed = update(shop)
    assert made == ["archive"]
    assert "settings changed (archive.runtime: auto → torchscript)" in printed


def test_weights_at_a_local_path_are_inputs(shop: Shop, tmp_path: Path) -> None:
    weights = tmp_path / "resnet50.pth"
    weights.write_bytes(b"1")
    shop.settings = Settings.model_validate({"image": {"weights": str(weights)}})
    update(shop)
    weights.write_bytes(b"22")
    assert why_stale(stage(shop, "train")) == f"weights changed ({weights})"


def test_a_new_evaluation_goes_into_the_archives_card(shop: Shop) -> None:
    update(shop)
    assert update(shop, "evaluate")[0] == ["evaluate"]
    made, printed = update(shop)
    assert made == ["archive"]
    assert "the evaluation changed (report" in printed
    assert update(shop)[0] == []


@pytest.mark.parametrize(
    ("source", "made"),
    [
        ("newshelf/training/part/code.py", ["train"]),
        ("newshelf/serving/part/code.py", ["graphs", "precision", "archive"]),
        ("handlers/code.py", ["archive"]),
        ("newshelf/errors.py", ["archive"]),
    ],
)
def test_changed_code_rebuilds_only_its_dependents(
    shop: Shop, source: str, made: list[str]
) -> None:
    update(shop)
    (shop.root / source).write_text("VALUE = 'other'\n")
    remade, printed = update(shop)
    assert remade == made
    assert f"code changed ({source})" in printed


def test_comments_and_docstrings_are_no_reason(shop: Shop) -> None:
    update(shop)
    path = shop.root / "handlers" / "code.py"
    path.write_text(f'"""What this is."""\n# A remark.\n{path.read_text()}')
    assert update(shop)[0] == []


def test_another_version_of_a_library_is_the_reason(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    update(shop)
    monkeypatch.setattr("newshelf.pipeline.stages.version", lambda name: f"{name} 99")
    reason = why_stale(stage(shop, "archive"))
    assert reason is not None
    assert "→ torch-model-archiver 99" in reason


def test_an_equal_output_leaves_later_stages_alone(shop: Shop) -> None:
    update(shop)
    before = output_id(stage(shop, "train"))
    (shop.root / "newshelf" / "training" / "part" / "code.py").write_text("OTHER = 1\n")
    made, _ = update(shop)
    # training.json differs from run to run, and does not count.
    assert (made, output_id(stage(shop, "train"))) == (["train"], before)


def test_another_model_rebuilds_all_later_stages(shop: Shop) -> None:
    update(shop)
    shop.settings = Settings.model_validate({"finetune": {"epochs": 3}})
    _, printed = update(shop)
    assert "graphs: the trained model changed (checkpoint)" in printed
    assert "archive: the export changed (graphs and index)" in printed


@pytest.mark.parametrize("file", ["checkpoint/encoder.safetensors", "graphs/index/index.json"])
def test_a_removed_output_is_rebuilt(shop: Shop, file: str) -> None:
    update(shop)
    (shop.workspace.root / file).unlink()
    assert "its files were changed or removed" in update(shop)[1]
    assert (shop.workspace.root / file).is_file()


def test_float32_is_archived_first_and_the_precision_searched_afterwards(shop: Shop) -> None:
    update(shop, "graphs")
    stages = shop.stages()
    assert stages.to_serve("auto") == stages.to_serve("fp32") == [stages.first]
    assert stages.to_serve("int8") == [stages.precision, stages.export, stages.archive]
    bring_up_to_date(stages.to_serve("auto"), Console(quiet=True))
    assert shop.done == ["train", "graphs", "archive"]
    first = archive_paths(shop.workspace.first)
    assert [path.name for path in first] == ["encoder-abc-fp32.mar", "recommender-abc-fp32.mar"]
    assert why_stale(stages.first) is None
    assert update(shop)[0] == ["precision", "export", "archive"]
    stages = shop.stages()
    assert stages.to_serve("auto") == stages.to_serve("fp32") == [
        stages.precision, stages.export, stages.archive,
    ]  # fmt: skip
    assert (shop.workspace.export / "encoder.int8.onnx").read_bytes() == b"int8"
    assert all(path.is_file() for path in first), "the first archives are kept"


@pytest.mark.parametrize("changed", ["scorer", "events", "titles"])
def test_only_another_encoder_is_searched_for_a_precision(shop: Shop, changed: str) -> None:
    update(shop)
    match changed:
        case "scorer":
            shop.settings = Settings.model_validate({"scorer": {"width": 64}})
        case "events":
            (shop.workspace.catalog / "events.csv").write_text("user_id\n")
        case _:
            items = pd.DataFrame({"id": ["a"], "title": ["bracelet"]})
            items.to_parquet(shop.workspace.catalog / "items.parquet")
    made = update(shop)[0]
    assert ("train" in made, "graphs" in made, "archive" in made) == (True, True, True)
    assert ("precision" in made) == (changed == "titles")


def test_an_overwritten_archive_is_rebuilt(shop: Shop) -> None:
    update(shop)
    archive, _ = archive_paths(shop.workspace.archive)
    os.utime(archive, ns=(1, 1))
    assert update(shop)[0] == ["archive"]


def test_a_failed_stage_leaves_the_old_output(shop: Shop) -> None:
    update(shop)
    old = stage(shop, "train")

    def fail(out: Path) -> None:
        (out / "encoder.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    broken = Stage("train", old.directory, old.inputs, fail)
    with pytest.raises(KeyboardInterrupt):
        build(broken)
    assert why_stale(old) is None
    assert sorted(
        path.name for path in shop.workspace.root.iterdir() if "checkpoint" in path.name
    ) == ["checkpoint"]


def test_temporary_folders_of_a_killed_run_are_removed(shop: Shop) -> None:
    for left in (".checkpoint.x1y2", ".checkpoint.old"):
        (shop.workspace.root / left).mkdir(parents=True)
        (shop.workspace.root / left / "encoder.safetensors").write_bytes(b"half")
    update(shop)
    assert [path.name for path in shop.workspace.root.glob(".*")] == []


def test_training_state_is_removed_with_the_checkpoint_written(shop: Shop) -> None:
    kept = shop.workspace.training / "source.pt"
    train = stage(shop, "train")

    def broken_off(out: Path) -> None:
        kept.parent.mkdir(parents=True)
        kept.write_bytes(b"epoch 5")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(replace(train, build=broken_off))
    assert kept.read_bytes() == b"epoch 5"
    update(shop)
    assert not shop.workspace.training.exists()


def test_the_identity_of_a_training_run_depends_on_its_inputs_only(shop: Shop) -> None:
    update(shop)
    (shop.workspace.checkpoint / "encoder.safetensors").unlink()
    shop.settings = Settings.model_validate({"tracking": {"kind": "none"}})
    update(shop)
    shop.settings = Settings.model_validate({"fusion": {"kind": "late"}})
    update(shop)
    first, again, other = shop.identities
    assert first == again != other


def test_a_failed_archive_leaves_no_stamp(shop: Shop) -> None:
    update(shop)
    old = stage(shop, "archive")

    def fail(_out: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        build(Stage("archive", old.directory, old.inputs, fail, outside=archive_paths))
    assert why_stale(old) == "not made yet"


@pytest.mark.parametrize("text", ["", "[]", '{"format": 0}', "{"])
def test_a_damaged_stamp_counts_as_none(shop: Shop, text: str) -> None:
    update(shop)
    (shop.workspace.checkpoint / "stamp.json").write_text(text)
    assert why_stale(stage(shop, "train")) == "not made yet"


def test_the_stamp_names_every_input(shop: Shop) -> None:
    update(shop)
    stamp = json.loads((shop.workspace.checkpoint / "stamp.json").read_text())
    assert set(stamp["inputs"]) == {
        "the catalogue",
        "settings",
        "weights",
        "code",
        "libraries",
    }


ENTRIES = {
    "sample": ["newshelf.sample.build"],
    "train": ["newshelf.training.train", "newshelf.catalog.catalog"],
    "evaluate": ["newshelf.training.evaluate", "newshelf.catalog.catalog"],
    "graphs": ["export.run", "export.index", "export.model_card"],
    "precision": ["export.precision", "newshelf.catalog.catalog"],
    "archive": ["export.archive", "handlers.encoder_handler", "handlers.recommender_handler"],
}


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph(
        "newshelf", "export", "handlers", cache_dir=None, exclude_type_checking_imports=True
    )


@pytest.mark.parametrize("name", sorted(CODE))
def test_a_stages_sources_cover_what_its_work_imports(
    name: str, imports: grimp.ImportGraph
) -> None:
    watched = {path for pattern in CODE[name] for path in ROOT.glob(pattern)}
    watched |= {ROOT / path for path in SHARED_CODE}
    modules = set(ENTRIES[name])
    for entry in ENTRIES[name]:
        modules |= imports.find_upstream_modules(entry)
    files = {_file(module) for module in modules}
    assert {path for path in files if path.name != "__init__.py"} <= watched


def _file(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
