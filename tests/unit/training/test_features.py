"""The frozen towers' features: right, and computed once."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image

from newshelf.errors import TrainingError
from newshelf.nn.encoder import Encoder
from newshelf.nn.inputs import Tokenizer, attribute_row, decode_picture, prepare_pictures
from newshelf.training import features
from newshelf.training.features import FeatureTable, feature_table
from tests.unit.export.tiny_checkpoint import tiny_spec, tokenizer_json
from tests.unit.training.conftest import shop_items


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(3)
    return Encoder(tiny_spec().encoder).eval()


@pytest.fixture
def tokenizer(tmp_path) -> Tokenizer:
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer_json())
    return Tokenizer(path, 36)


@pytest.fixture
def catalog(write_catalog, tmp_path):
    items = shop_items(40, tmp_path / "shop")
    items[3]["title"], items[4]["image_link"] = None, None
    items[5]["title"] = items[6]["title"]
    shutil.copy(tmp_path / "shop/images/7.png", tmp_path / "shop/images/8.png")
    return write_catalog(items=items)


@pytest.fixture
def table_of(encoder, tokenizer, tmp_path, said):
    """Compute a table; returns it with how many pictures and texts the towers saw."""

    def compute(catalog) -> tuple[FeatureTable, int, int]:
        seen = {"image": 0, "text": 0}

        def count(name):
            def hook(_module, inputs):
                seen[name] += len(inputs[0])

            return hook

        hooks = [
            encoder.image_tower.register_forward_pre_hook(count("image")),
            encoder.text_tower.register_forward_pre_hook(count("text")),
        ]
        table = feature_table(catalog, encoder, tokenizer, tmp_path / "cache", said.console)
        for hook in hooks:
            hook.remove()
        return table, seen["image"], seen["text"]

    return compute


@torch.inference_mode()
def test_each_row_is_its_own_products(catalog, encoder, tokenizer, table_of):
    table, _, _ = table_of(catalog)
    assert len(table) == 40
    assert table.image_present.tolist() == [row != 4 for row in range(40)]
    assert table.text_present.tolist() == [row != 3 for row in range(40)]
    for row, product in enumerate(catalog.products()):
        image = torch.zeros(encoder.spec.image.features)
        if row != 4:
            picture = decode_picture(catalog.image_path(row).read_bytes(), encoder.spec.image)
            batch = prepare_pictures([picture], encoder.spec.image)
            image = encoder.image_tower(torch.from_numpy(batch))[0]
        text = torch.zeros(32)
        if row != 3:
            ids, mask = tokenizer.batch([product.text()])
            text = encoder.text_tower(torch.from_numpy(ids), torch.from_numpy(mask))[0]
        torch.testing.assert_close(table.image[row], image, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(table.text[row], text, atol=1e-4, rtol=1e-3)
        assert table.attributes[row].tolist() == attribute_row(product, encoder.spec.attributes)


def test_equal_pictures_and_texts_are_computed_once_and_a_second_time_never(catalog, table_of):
    first, pictures, texts = table_of(catalog)
    # 40, less the absent one and the copy.
    assert (pictures, texts) == (38, 38)
    second, pictures, texts = table_of(catalog)
    assert (pictures, texts) == (0, 0)
    for name in ("image", "image_present", "text", "text_present", "attributes"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_what_is_added_costs_only_itself(catalog, write_catalog, tmp_path, table_of):
    before, _, _ = table_of(catalog)
    items = shop_items(40, tmp_path / "shop")
    Image.new("RGB", (9, 9), "purple").save(tmp_path / "shop/images/new.png")
    new = {"id": "new", "title": "lamp", "price": 2.0, "image_link": "images/new.png"}
    after, pictures, texts = table_of(write_catalog(items=[new, *items[10:]]))
    assert (pictures, texts) == (1, 1)
    assert torch.equal(after.image[1:], before.image[10:])
    assert after.image[0].abs().sum() > 0


def test_other_weights_have_another_cache(catalog, encoder, table_of, tmp_path):
    table_of(catalog)
    files = {path.name for path in (tmp_path / "cache").iterdir()}
    assert len(files) == 2
    with torch.no_grad():
        next(encoder.text_tower.parameters())[0, 0] += 1.0
    _, pictures, texts = table_of(catalog)
    assert (pictures, texts) == (0, 38)
    assert len({path.name for path in (tmp_path / "cache").iterdir()} - files) == 1


def test_other_input_settings_have_another_cache(catalog, encoder, table_of):
    table_of(catalog)
    image = encoder.spec.image.model_copy(update={"crop": 0.5})
    encoder.spec = encoder.spec.model_copy(update={"image": image})
    assert table_of(catalog)[1:] == (38, 0)


def test_a_damaged_picture_is_left_out_and_said(catalog, table_of, tmp_path, said):
    (tmp_path / "shop/images/11.png").write_bytes(b"not a picture")
    table, pictures, _ = table_of(catalog)
    assert pictures == 37
    assert not table.image_present[11]
    assert table.image[11].count_nonzero() == 0
    assert table.text_present[11]
    assert "11.png: the bytes are no JPEG" in said.text


def test_of_many_damaged_pictures_ten_are_named(catalog, table_of, tmp_path, said):
    for at in range(20, 35):
        (tmp_path / f"shop/images/{at}.png").write_bytes(b"not a picture %d" % at)
    assert not table_of(catalog)[0].image_present[20:35].any()
    assert said.text.count("left out a picture") == 10
    assert "and 5 more pictures" in said.text


def test_what_has_no_tower_is_absent(catalog, tokenizer, tmp_path, said):
    for keep in ("image", "text"):
        spec = tiny_spec(image=keep == "image", text=keep == "text").encoder
        one = Encoder(spec).eval()
        table = feature_table(
            catalog, one, tokenizer if spec.text else None, tmp_path / keep, said.console
        )
        gone = "text" if keep == "image" else "image"
        assert getattr(table, keep).shape[1] > 1
        assert getattr(table, f"{keep}_present").sum() == 39
        assert torch.equal(getattr(table, gone), torch.zeros(40, 1))
        assert not getattr(table, f"{gone}_present").any()


def test_content_has_each_modality_at_unit_length(catalog, table_of, encoder):
    table, _, _ = table_of(catalog)
    width = encoder.spec.image.features
    content = torch.from_numpy(table.content())
    assert content.shape == (40, width + 32)
    image, text = content[:, :width].norm(dim=1), content[:, width:].norm(dim=1)
    torch.testing.assert_close(image, table.image_present.float())
    torch.testing.assert_close(text, table.text_present.float())


def test_rows_are_what_the_fusion_takes(catalog, table_of, encoder):
    table, _, _ = table_of(catalog)
    index = torch.tensor([7, 3, 4])
    features, attributes = table.rows(index)
    assert torch.equal(features[0], table.image[index])
    assert features[1].tolist() == [True, True, False]
    assert features[3].tolist() == [True, False, True]
    assert encoder.fuse(features, attributes).shape == (3, 512)


def test_another_tokenizer_reads_the_texts_again(table_of, catalog, encoder, tmp_path, said):
    table_of(catalog)
    path = tmp_path / "other.json"
    path.write_text(tokenizer_json().replace('"lowercase": true', '"lowercase": false') + "\n")
    feature_table(catalog, encoder, Tokenizer(path, 36), tmp_path / "cache", said.console)
    assert len(list((tmp_path / "cache").iterdir())) == 3, "pictures, and texts as two read them"


@pytest.mark.parametrize(("threads", "pictures", "texts"), [(1, 4, 32), (3, 4, 10), (40, 1, 1)])
def test_each_thread_computes_small_batches_alone(
    catalog, encoder, table_of, threads, pictures, texts
):
    torch.set_num_threads(threads)
    seen = {"image": [], "text": []}
    for name, sizes in seen.items():
        getattr(encoder, f"{name}_tower").register_forward_pre_hook(
            lambda _, inputs, sizes=sizes: sizes.append((len(inputs[0]), torch.get_num_threads()))
        )
    table_of(catalog)
    assert {name: max(sizes) for name, sizes in seen.items()} == {
        "image": (pictures, 1),
        "text": (texts, 1),
    }
    assert torch.get_num_threads() == threads


@pytest.fixture
def large_batches(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(features, "_PICTURES", 32)


def test_a_picture_that_cannot_be_read_is_left_out_and_said(catalog, table_of, tmp_path, said):
    path = tmp_path / "shop/images/11.png"
    path.unlink()
    path.mkdir()
    assert not table_of(catalog)[0].image_present[11]
    assert "11.png: Is a directory" in said.text


@pytest.mark.usefixtures("large_batches")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("tower", "named"), [("image", r"\d+\.png"), ("text", "'.* jade'")])
def test_features_that_are_no_numbers_are_refused_by_name(
    catalog, encoder, table_of, tmp_path, value, tower, named
):
    def spoil(_module, inputs, output):
        output = output.clone()
        # One row of the second batch, which has what comes last.
        if len(inputs[0]) < 32:
            output[-1, 3] = value
        return output

    getattr(encoder, f"{tower}_tower").register_forward_hook(spoil)
    message = rf"\[{tower}\] the tower's features of {named} are not finite \(1 of 6"
    with pytest.raises(TrainingError, match=message):
        table_of(catalog)
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == (tower == "text")


@pytest.mark.usefixtures("large_batches")
def test_a_kill_loses_the_last_half_minute_only(catalog, encoder, table_of, monkeypatch):
    monkeypatch.setattr(features, "_SAVE_EVERY_S", -1.0)
    calls = []

    def die(_module, _inputs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    hook = encoder.image_tower.register_forward_pre_hook(die)
    with pytest.raises(KeyboardInterrupt):
        table_of(catalog)
    hook.remove()
    assert table_of(catalog)[1:] == (6, 38)


def test_a_text_that_cannot_be_read_is_absent(write_catalog, tmp_path, table_of):
    items = shop_items(8, tmp_path / "shop")
    items[2]["title"] = items[5]["title"] = "\u0e40\u0e14\u0e23\u0e2a"
    items[6]["title"] = "\u0e40\u0e14\u0e23\u0e2a jade"
    table, _, texts = table_of(write_catalog(items=items))
    assert table.text_present.tolist() == [row not in (2, 5) for row in range(8)]
    assert not table.text[[2, 5]].any()
    assert texts == 6


def test_an_interrupted_run_computes_no_more_and_leaves_torchs_threads(tmp_path, said) -> None:
    torch.set_num_threads(2)
    computed = []

    def compute(keys):
        computed.extend(keys)
        time.sleep(0.05)
        raise KeyboardInterrupt

    store = features._Store(tmp_path, "tower")
    with pytest.raises(KeyboardInterrupt):
        store.fill([str(number) for number in range(20_000)], compute, "texts", said.console)
    assert len(computed) < 20_000
    with ThreadPoolExecutor(1) as other:
        assert other.submit(torch.get_num_threads).result() == 2
