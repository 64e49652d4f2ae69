import pytest

from newshelf.config import Limits
from newshelf.errors import SettingsError, VersionMismatch, WeightsError
from newshelf.nn.spec import read_spec
from newshelf.serving.settings import ServingSettings, read_version, write_version


def test_defaults_stand_without_sections():
    assert ServingSettings.from_model_config(None) == ServingSettings()
    assert ServingSettings.from_model_config({"minWorkers": 1}) == ServingSettings()


def test_sections_are_read():
    config = {
        "batchSize": 8,
        "serving": {"runtime": "torchscript", "threads": 2},
        "limits": {"max_k": 7},
    }
    settings = ServingSettings.from_model_config(config)
    assert (settings.runtime, settings.threads, settings.limits.max_k) == ("torchscript", 2, 7)
    assert settings.limits.max_instances == Limits().max_instances


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"limits": {"max_kk": 7}}, "limits.max_kk"),
        ({"limits": {"max_k": 0}}, "limits.max_k"),
        ({"limits": 3}, "limits"),
        ({"serving": {"thread": 7}}, "thread"),
        ({"serving": {"runtime": "tensorrt"}}, "runtime"),
        ({"serving": "fast"}, "serving"),
    ],
)
def test_unknown_keys_and_bad_values_are_refused(config, told):
    with pytest.raises(SettingsError, match=told):
        ServingSettings.from_model_config(config)


def test_the_version_goes_with_the_files(tmp_path):
    write_version(tmp_path, "abc")
    assert read_version(tmp_path) == "abc"
    (tmp_path / "version.json").write_text("[]")
    with pytest.raises(VersionMismatch, match="does not name"):
        read_version(tmp_path)
    with pytest.raises(VersionMismatch, match="does not name"):
        read_version(tmp_path / "nowhere")


def test_a_missing_or_foreign_model_description_is_told(tmp_path, bundle):
    assert read_spec(bundle).catalog_name == "tiny"
    with pytest.raises(WeightsError, match="missing"):
        read_spec(tmp_path)
    (tmp_path / "model.json").write_text('{"format": 2}')
    with pytest.raises(WeightsError, match="format"):
        read_spec(tmp_path)
