"""The encoder's contract: compact rows, padding, absence, heads."""

import pytest
import torch
from torch import Tensor

from newshelf.nn.encoder import AttributeTower, Encoder
from tests.unit.export.tiny_checkpoint import tiny_spec

BATCH = 5
IMAGE_ROWS = [0, 2, 4]
TEXT_ROWS = [1, 2, 3]
Inputs = dict[str, Tensor]


@pytest.fixture
def inputs() -> Inputs:
    """Rows: picture; text; both; text with attributes; picture with attributes."""
    generator = torch.Generator().manual_seed(0)
    attributes = torch.zeros(BATCH, 9, dtype=torch.int64)
    attributes[3:] = torch.randint(1, 64, (2, 9), generator=generator)
    mask = torch.ones(3, 7, dtype=torch.int64)
    mask[1, 4:] = 0
    return {
        "image": torch.randn(3, 3, 32, 32, generator=generator),
        "image_row": torch.tensor(IMAGE_ROWS),
        "input_ids": torch.randint(4, 12, (3, 7), generator=generator),
        "attention_mask": mask,
        "text_row": torch.tensor(TEXT_ROWS),
        "attributes": attributes,
    }


def alone(inputs: Inputs, row: int) -> Inputs:
    """One product as a batch of its own, with padding for what it lacks."""
    image = [at for at, of in enumerate(inputs["image_row"].tolist()) if of == row]
    text = [at for at, of in enumerate(inputs["text_row"].tolist()) if of == row]
    length = int(inputs["attention_mask"][text].sum()) if text else 1
    return {
        "image": inputs["image"][image] if image else torch.zeros(1, 3, 32, 32),
        "image_row": torch.tensor([0 if image else 1]),
        "input_ids": (
            inputs["input_ids"][text, :length] if text else torch.zeros(1, 1, dtype=torch.int64)
        ),
        "attention_mask": torch.ones(1, length, dtype=torch.int64),
        "text_row": torch.tensor([0 if text else 1]),
        "attributes": inputs["attributes"][row : row + 1],
    }


@torch.no_grad()
def test_a_batch_equals_its_rows_one_by_one(encoder, inputs):
    together = encoder(**inputs)
    for row in range(BATCH):
        for whole, single in zip(together, encoder(**alone(inputs, row)), strict=True):
            torch.testing.assert_close(whole[row], single[0], atol=1e-5, rtol=1e-4)
    apart = torch.cdist(together[0], together[0])[~torch.eye(BATCH, dtype=torch.bool)]
    assert apart.min() > 1e-3


@torch.no_grad()
def test_pictures_and_texts_may_come_in_any_order_with_padding_among_them(encoder, inputs):
    padded = dict(inputs)
    order = torch.tensor([2, 0, 1])
    junk = torch.full((1, 3, 32, 32), 1e3)
    padded["image"] = torch.cat([junk, inputs["image"][order], junk])
    padded["image_row"] = torch.cat(
        [torch.tensor([BATCH]), inputs["image_row"][order], torch.tensor([BATCH])]
    )
    for name, filler in (("input_ids", 7), ("attention_mask", 0)):
        row = torch.full((1, 7), filler)
        padded[name] = torch.cat([inputs[name][order], row])
    padded["text_row"] = torch.cat([inputs["text_row"][order], torch.tensor([BATCH])])
    for expected, actual in zip(encoder(**inputs), encoder(**padded), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_what_stands_at_padding_places_of_a_text_does_not_matter(encoder, inputs):
    changed = dict(inputs)
    changed["input_ids"] = inputs["input_ids"].clone()
    changed["input_ids"][1, 4:] = 5
    assert (changed["input_ids"] != inputs["input_ids"]).any()
    torch.testing.assert_close(encoder(**changed)[0], encoder(**inputs)[0], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_product_of_nothing_is_finite_and_of_unit_length(encoder):
    nothing = {
        "image": torch.zeros(1, 3, 32, 32),
        "image_row": torch.tensor([2]),
        "input_ids": torch.zeros(1, 1, dtype=torch.int64),
        "attention_mask": torch.zeros(1, 1, dtype=torch.int64),
        "text_row": torch.tensor([2]),
        "attributes": torch.zeros(2, 9, dtype=torch.int64),
    }
    embedding, *logits = encoder(**nothing)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))
    assert torch.equal(embedding[0], embedding[1])
    assert all(torch.isfinite(values).all() for values in logits)


@torch.no_grad()
def test_unit_length_and_one_tensor_of_logits_for_each_head(encoder, inputs, spec):
    embedding, *logits = encoder(**inputs)
    assert embedding.shape == (BATCH, 512)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(BATCH))
    assert encoder.head_names == ("target_type", "color")
    assert [tuple(values.shape) for values in logits] == [(BATCH, 3), (BATCH, 2)]
    torch.testing.assert_close(logits[1], encoder.heads["color"](embedding))


@torch.no_grad()
@pytest.mark.parametrize(("image", "text"), [(True, False), (False, True), (False, False)])
def test_the_inputs_of_a_tower_that_is_absent_are_ignored(inputs, image, text):
    encoder = Encoder(tiny_spec(image=image, text=text).encoder).eval()
    other = dict(inputs)
    if not image:
        other["image"] = torch.zeros(1, 3, 1, 1)
        other["image_row"] = torch.tensor([BATCH])
    if not text:
        other["input_ids"] = torch.zeros(1, 1, dtype=torch.int64)
        other["attention_mask"] = torch.zeros(1, 1, dtype=torch.int64)
        other["text_row"] = torch.tensor([BATCH])
    assert torch.equal(encoder(**inputs)[0], encoder(**other)[0])


@torch.no_grad()
def test_fusing_cached_features_equals_the_whole_way(encoder, inputs):
    image = torch.zeros(BATCH, encoder.spec.image.features)
    image[IMAGE_ROWS] = encoder.image_tower(inputs["image"])
    text = torch.full((BATCH, 32), 7.0)
    text[TEXT_ROWS] = encoder.text_tower(inputs["input_ids"], inputs["attention_mask"])
    has_image = torch.zeros(BATCH, dtype=torch.bool)
    has_text = has_image.clone()
    has_image[IMAGE_ROWS], has_text[TEXT_ROWS] = True, True
    fused = encoder.fuse((image, has_image, text, has_text), inputs["attributes"])
    torch.testing.assert_close(fused, encoder(**inputs)[0], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_the_attribute_tower_keeps_columns_apart_and_absence_silent(spec):
    tower = AttributeTower(spec.attributes)
    rows = torch.zeros(10, 9, dtype=torch.int64)
    rows[range(9), range(9)] = 5
    features = tower(rows).view(10, 9, 8)
    assert tower.features == 72
    for at in range(9):
        assert torch.equal(features[at, at], tower.table.weight[at * 64 + 5])
        assert features[at].count_nonzero() == features[at, at].count_nonzero()
    assert features[9].count_nonzero() == 0


@torch.no_grad()
def test_the_text_tower_averages_over_real_tokens(encoder, inputs):
    mask = inputs["attention_mask"]
    hidden = encoder.text_tower.backbone(inputs["input_ids"], mask).last_hidden_state
    pooled = encoder.text_tower(inputs["input_ids"], mask)
    expected = torch.stack([hidden[0].mean(0), hidden[1, :4].mean(0), hidden[2].mean(0)])
    torch.testing.assert_close(pooled, expected)
