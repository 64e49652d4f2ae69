"""Decoding, augmentation, validation split and class balance of pictures."""

import pytest
import torch
from PIL import Image

from newshelf.errors import TrainingError
from newshelf.nn.inputs import decode_picture, prepare_pictures
from newshelf.nn.spec import ImageInput
from newshelf.training.picture_data import (
    augment_pictures,
    epoch_rows,
    read_pictures,
    split_validation,
)


@pytest.fixture
def shop(write_catalog, tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    for at in range(4):
        Image.new("RGB", (40, 30), (60 * at, 20, 20)).save(folder / f"{at}.jpg")
    whole = (folder / "2.jpg").read_bytes()
    (folder / "2.jpg").write_bytes(whole[: len(whole) // 2])
    rows = [{"id": f"i{at}", "title": "x", "image_link": f"{at}.jpg"} for at in range(4)]
    return write_catalog(items=[*rows, {"id": "i4", "title": "no picture", "image_link": None}])


def test_pictures_are_what_serving_would_see(shop, said):
    pictures = read_pictures(shop, [1, 3], 16, said.console)
    spec = ImageInput(architecture="x", features=1, size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    files = [(shop.folder / f"{at}.jpg").read_bytes() for at in (1, 3)]
    served = prepare_pictures([decode_picture(data, spec) for data in files], spec)
    read = (pictures.pixels.float() / 255 - 0.5) / 0.5
    torch.testing.assert_close(read, torch.from_numpy(served), atol=1e-6, rtol=0)


def test_a_damaged_picture_is_left_out_and_named(shop, said):
    pictures = read_pictures(shop, range(5), 16, said.console)
    assert pictures.rows.tolist() == [0, 1, 3]
    assert "2.jpg: the picture is damaged" in said.text


def test_a_picture_that_has_gone_is_left_out_and_named(shop, said):
    (shop.folder / "1.jpg").unlink()
    assert read_pictures(shop, range(4), 16, said.console).rows.tolist() == [0, 3]
    assert "1.jpg: No such file" in said.text


def test_no_picture_at_all_is_refused(shop, said):
    with pytest.raises(TrainingError, match="none of the 2 products"):
        read_pictures(shop, [2, 4], 16, said.console)


def test_augmented_pictures_differ_from_each_other_and_by_seed_alone():
    pixels = torch.randint(0, 255, (1, 3, 24, 24), dtype=torch.uint8).expand(3, -1, -1, -1)
    torch.manual_seed(0)
    once = augment_pictures(pixels)
    torch.manual_seed(0)
    again = augment_pictures(pixels)
    assert (once.shape, once.dtype) == (pixels.shape, torch.uint8)
    assert torch.equal(once, again)
    assert not torch.equal(once[0], once[1])


def test_corners_that_a_turn_leaves_bare_are_white():
    torch.manual_seed(0)
    turned = augment_pictures(torch.full((8, 3, 24, 24), 255, dtype=torch.uint8))
    assert (turned.float().flatten(1).std(dim=1) == 0).all()


TARGET = torch.tensor([0] * 40 + [1] * 10 + [2] * 10)


def test_a_balanced_epoch_draws_each_class_alike():
    rows = torch.cat(
        [epoch_rows(TARGET, True, torch.Generator().manual_seed(seed)) for seed in range(50)]
    )
    assert len(rows) == 50 * len(TARGET)
    shares = torch.bincount(TARGET[rows]) / len(rows)
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.04, rtol=0)


def test_an_unbalanced_epoch_is_every_row_once():
    rows = epoch_rows(TARGET, False, torch.Generator().manual_seed(0))
    assert sorted(rows.tolist()) == list(range(60))
    assert rows.tolist() != list(range(60))


def test_a_share_of_each_class_is_held_out():
    learn, held = split_validation(TARGET, 0.2, 0)
    assert torch.bincount(TARGET[held]).tolist() == [8, 2, 2]
    assert sorted(torch.cat([learn, held]).tolist()) == list(range(60))


def test_nothing_is_held_out_of_a_few_shots():
    learn, held = split_validation(torch.tensor([0] * 40 + [1] * 9), 0.2, 0)
    assert (len(learn), len(held)) == (49, 0)
