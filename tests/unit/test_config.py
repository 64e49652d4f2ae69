"""Settings are read once, refused when wrong, and cannot change."""

from pathlib import Path

import pydantic
import pytest

from newshelf.config import Settings, load_settings
from newshelf.errors import SettingsError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def write(tmp_path):
    def save(text: str) -> Path:
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return save


def test_every_key_may_be_left_out(write):
    assert load_settings(write("")) == Settings()


def test_the_packaged_file_states_the_defaults():
    assert load_settings(CONFIGS / "packaged.toml") == Settings()


def test_the_production_file_names_resnet50_and_a_bert():
    settings = load_settings(CONFIGS / "production.toml")
    assert settings.image.architecture == "resnet50"
    assert "bert" in settings.text.weights
    assert settings.archive.encoder.batch_size == 16


def test_a_key_changes_only_itself(write):
    settings = load_settings(write("[scorer]\nwidth = 64\n"))
    scorer = settings.scorer
    assert scorer.width == 64
    assert scorer.model_copy(update={"width": 128}) == Settings().scorer
    assert settings.model_copy(update={"scorer": Settings().scorer}) == Settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sede = 3", r"sede: Extra inputs"),
        ("[image]\nweight = 'hub'", r"image\.weight: Extra inputs"),
        ("[archive.encoder]\nbatchsize = 2", r"archive\.encoder\.batchsize: Extra inputs"),
        ("[scorer]\nwidth = 0", r"scorer\.width: .*greater than 0"),
        ("[scorer]\nwidth = 'wide'", r"scorer\.width: .*integer"),
        ("[image]\ncrop = 1.5", r"image\.crop: .*less than or equal to 1"),
        ("[text]\nmax_tokens = 4", r"text\.max_tokens: .*greater than or equal to 8"),
        ("[evaluation]\nk = [10, 0]", r"evaluation\.k\.1: .*greater than 0"),
        ("[finetune]\nlearning_rate = nan", r"finetune\.learning_rate: "),
        ("[finetune]\nlearning_rate = inf", r"finetune\.learning_rate: .*finite number"),
        ("[scorer]\nlearning_rate = inf", r"scorer\.learning_rate: .*finite number"),
        ("[scorer]\nlearning_rate = nan", r"scorer\.learning_rate: "),
        ("[finetune]\nl2_sp = inf", r"finetune\.l2_sp: .*finite number"),
        ("[fusion]\nkind = 'middle'", r"fusion\.kind: .*'early', 'late' or 'attention'"),
        ("[fusion]\nmodality_dropout = 0.6", r"fusion\.modality_dropout: .*equal to 0\.5"),
        ("[tracking]\nkind = 'wandb'", r"tracking\.kind: .*'tensorboard', 'mlflow' or 'none'"),
        ("[archive]\nruntime = 'tensorrt'", r"archive\.runtime: .*'onnxruntime'"),
        # TorchServe would read 0 as 100 ms.
        ("[archive.encoder]\nmax_batch_delay_ms = 0", r"archive\.encoder\.max_batch_delay_ms: .*1"),
    ],
)
def test_a_wrong_key_is_named_with_its_file_and_reason(write, text, said):
    with pytest.raises(SettingsError, match=rf"mine\.toml: {said}"):
        load_settings(write(text))


def test_all_wrong_keys_are_named_at_once(write):
    with pytest.raises(SettingsError) as caught:
        load_settings(write("sede = 3\n[scorer]\nwidth = -1\n[nothing]\n"))
    for name in ("sede", "scorer.width", "nothing"):
        assert name in caught.value.message


def test_invalid_toml_is_refused_with_its_place(write):
    with pytest.raises(SettingsError, match=r"mine\.toml is not TOML: .*line 2"):
        load_settings(write("seed = 1\n[scorer\n"))


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"title = '\xe9'"])
def test_text_that_is_not_utf8_is_refused(tmp_path, data):
    path = tmp_path / "mine.toml"
    path.write_bytes(data)
    with pytest.raises(SettingsError, match=r"mine\.toml is not"):
        load_settings(path)


@pytest.mark.parametrize("name", ["gone.toml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(SettingsError, match=r"cannot read the settings .*: (No such|Is a dir)"):
        load_settings(tmp_path / name)


def test_settings_do_not_change():
    settings = Settings()
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        settings.seed = 3
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        settings.scorer.width = 3
