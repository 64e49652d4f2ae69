"""Warm start, fine-tuning and the target's head, on features whose structure is known."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from newshelf.config import FinetuneSettings
from newshelf.errors import TrainingError
from newshelf.nn.spec import ATTRIBUTE_COLUMNS
from newshelf.training import finetune
from newshelf.training.features import FeatureTable
from newshelf.training.finetune import (
    alignment_loss,
    drop_modalities,
    embed,
    mask_columns,
    train_source,
    warm_start,
)
from newshelf.training.labels import HeadLabels, class_weights
from newshelf.training.run import Run
from tests.unit.training.synthetic import IMAGE, TEXT, clusters, encoder_of, table_of

ROWS = 400
SETTINGS = FinetuneSettings(epochs=6, batch_size=64, target_shots=10)
KINDS = ("a", "b", "c", "d")
CLASSES = {"source_type": KINDS, "target_type": KINDS, "color": ("green", "red")}


@pytest.fixture
def run(said) -> Run:
    return Run(seed=3, console=said.console)


@pytest.fixture
def world():
    """Pictures show the type, texts name the colour; the last 160 rows are the target."""
    torch.manual_seed(0)
    kind, color = torch.arange(ROWS) % 4, torch.arange(ROWS) // 4 % 2
    table = table_of(clusters(kind, IMAGE, 0.7, 1), clusters(color, TEXT, 0.7, 2))
    source = torch.arange(ROWS) < 240
    labels = {
        "source_type": HeadLabels(KINDS, kind.masked_fill(~source, -1)),
        "target_type": HeadLabels(KINDS, kind.masked_fill(source, -1)),
        "color": HeadLabels(("green", "red"), color),
    }
    encoder = encoder_of(CLASSES)
    warm_start(encoder, table)
    return encoder, table, labels


def weights(encoder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in encoder.state_dict().items()}


def changed(before: dict[str, torch.Tensor], encoder) -> set[str]:
    after = encoder.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_heads_learn_what_holds_on_products_they_did_not_see(world, run):
    encoder, table, labels = world
    result = train_source(encoder, table, labels, SETTINGS, run)
    assert len(result.losses) == SETTINGS.epochs
    assert result.losses[-1] < 0.85 * result.losses[0]
    assert set(result.accuracy) == {"source_type", "color"}
    assert result.accuracy["source_type"] > 0.7
    assert result.accuracy["color"] > 0.8
    # A tenth of the labelled rows.
    assert 10 <= result.tested["source_type"] <= 40
    assert 25 <= result.tested["color"] <= 60


def test_the_source_stage_leaves_towers_and_the_targets_head_alone(world, run):
    encoder, table, labels = world
    before = weights(encoder)
    train_source(encoder, table, labels, SETTINGS, run)
    parts = {name.split(".")[0] for name in changed(before, encoder)}
    assert parts == {"fusion", "heads", "attribute_tower"}
    assert not {n for n in changed(before, encoder) if n.startswith("heads.target_type")}
    assert not encoder.training


def test_what_the_towers_knew_is_kept(world, run):
    encoder, table, labels = world
    start = embed(encoder, table)
    train_source(encoder, table, labels, SETTINGS, run)
    after = embed(encoder, table)
    assert 0.8 < F.cosine_similarity(start, after).mean() < 0.99999


def test_labels_held_out_are_not_learned_from(world, run):
    """Other labels on those rows give the same weights."""
    encoder, table, labels = world
    held = finetune._tenth(ROWS, seed=0)
    other = {
        head: HeadLabels(label.classes, label.target.masked_fill(held & (label.target >= 0), 0))
        for head, label in labels.items()
    }
    assert any(not torch.equal(other[head].target, labels[head].target) for head in labels)
    start, after = weights(encoder), []
    for some in (labels, other):
        encoder.load_state_dict(start)
        torch.manual_seed(1)
        train_source(encoder, table, some, SETTINGS, run)
        after.append(weights(encoder))
    assert all(torch.equal(value, after[1][name]) for name, value in after[0].items())


def stated_only():
    """Colours that nothing but the attribute column states."""
    torch.manual_seed(0)
    color = torch.randint(0, 4, (ROWS,))
    table = table_of(
        torch.randn(ROWS, IMAGE), torch.randn(ROWS, TEXT), columns={"color": color + 1}
    )
    encoder = encoder_of({"color": KINDS})
    warm_start(encoder, table)
    return encoder, table, {"color": HeadLabels(KINDS, color)}


def right_when_shown(encoder, table, color) -> float:
    logits = encoder.heads["color"](embed(encoder, table))
    return float((logits.argmax(dim=1) == color).float().mean())


def test_a_head_does_not_read_its_own_answer(run, monkeypatch):
    settings = FinetuneSettings(epochs=15, batch_size=64, learning_rate=3e-3)
    encoder, table, labels = stated_only()
    result = train_source(encoder, table, labels, settings, run)
    color = labels["color"].target
    assert result.accuracy["color"] < 0.5
    honest = right_when_shown(encoder, table, color)

    def show(attributes, heads):
        return attributes, {head: torch.ones(len(attributes), dtype=torch.bool) for head in heads}

    monkeypatch.setattr(finetune, "mask_columns", show)
    encoder, table, labels = stated_only()
    train_source(encoder, table, labels, settings, run)
    cheat = right_when_shown(encoder, table, color)
    assert cheat > 0.9
    assert honest < cheat - 0.2


def test_hidden_columns_are_those_that_state_the_label():
    torch.manual_seed(0)
    attributes = torch.ones(1000, 9, dtype=torch.int64)
    shown, hidden = mask_columns(attributes, ["color", "source_type"])
    assert (attributes == 1).all()
    columns = {name: shown[:, at] == 0 for at, name in enumerate(ATTRIBUTE_COLUMNS)}
    for head, names in (
        ("color", ("color", "second_color")),
        ("source_type", ("top_type", "product_type")),
    ):
        assert 0.4 < hidden[head].float().mean() < 0.6
        for name in names:
            assert torch.equal(columns[name], hidden[head])
    # The others come and go together, now and then.
    assert 0.1 < columns["brand"].float().mean() < 0.3
    assert torch.equal(columns["brand"], columns["price"])
    assert torch.equal(columns["brand"], columns["material"])


def test_dropping_never_takes_the_only_modality():
    torch.manual_seed(0)
    rows = torch.zeros(1000, 2)
    image, text = torch.rand(1000) < 0.7, torch.rand(1000) < 0.7
    _, has_image, _, has_text = drop_modalities((rows, image, rows, text), 0.2)
    assert not (has_image & ~image).any()
    assert not (has_text & ~text).any()
    assert torch.equal(has_image | has_text, image | text)
    both = image & text
    assert 0.1 < (~has_image[both]).float().mean() < 0.3
    assert 0.1 < (~has_text[both]).float().mean() < 0.3


def test_l2_sp_holds_the_weights_near_their_start(world, run):
    encoder, table, labels = world
    start, moved = weights(encoder), {}
    for weight in (0.0, 10.0):
        encoder.load_state_dict(start)
        settings = SETTINGS.model_copy(update={"l2_sp": weight})
        result = train_source(encoder, table, labels, settings, run)
        parts = [(name, value) for name, value in start.items() if name.startswith("fusion.")]
        after = encoder.state_dict()
        moved[weight] = sum(float((after[name] - value).square().sum()) for name, value in parts)
        assert len(result.losses) == SETTINGS.epochs
    assert moved[10.0] < 0.2 * moved[0.0]


def test_the_alignment_loss_is_symmetric_and_least_for_equal_views():
    torch.manual_seed(0)
    first, second = (F.normalize(torch.randn(16, 8), dim=1) for _ in range(2))
    loss = alignment_loss(first, second)
    torch.testing.assert_close(loss, alignment_loss(second, first))
    assert alignment_loss(first, first) < loss < alignment_loss(first, -first)
    one = torch.eye(2)
    expected = torch.log1p(torch.exp(torch.tensor(-1 / 0.5)))
    torch.testing.assert_close(alignment_loss(one, one, temperature=0.5), expected)


def test_the_alignment_loss_has_the_right_gradient():
    torch.manual_seed(0)
    views = [torch.randn(5, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(alignment_loss, views)


def test_an_aligned_text_finds_the_picture_of_its_product(run):
    """Pictures and texts say the same in different coordinates."""
    torch.manual_seed(0)
    said = torch.randn(ROWS, 16)
    image = said @ torch.randn(16, IMAGE) + 4 * torch.randn(ROWS, IMAGE)
    table = table_of(image, said @ torch.randn(16, TEXT) + 4 * torch.randn(ROWS, TEXT))
    found = {}
    for weight in (0.0, 1.0):
        encoder = encoder_of({})
        warm_start(encoder, table)
        settings = SETTINGS.model_copy(update={"align": weight})
        result = train_source(encoder, table, {}, settings, run)
        assert result.losses[-1] < result.losses[0]
        rows = torch.nonzero(table.image_present & table.text_present).flatten()
        (image, image_present, text, text_present), attributes = table.rows(rows)
        absent = torch.zeros_like(image_present)
        with torch.no_grad():
            pictures = encoder.fuse((image, image_present, text, absent), attributes)
            texts = encoder.fuse((image, absent, text, text_present), attributes)
        nearest = (texts @ pictures.T).argmax(dim=1)
        found[weight] = float((nearest == torch.arange(len(rows))).float().mean())
    assert found[1.0] > 1.3 * found[0.0]


def test_class_weights_follow_the_formula():
    target = torch.tensor([0] * 90 + [1] * 9 + [2] + [-1] * 50)
    for balance in (0.0, 0.5, 1.0):
        found = class_weights(target, 4, balance)
        raw = torch.tensor([90.0, 9.0, 1.0]) ** -balance
        mean = (raw * torch.tensor([90.0, 9.0, 1.0])).sum() / 100
        torch.testing.assert_close(found, torch.cat([raw / mean, torch.ones(1)]))
    assert torch.isfinite(class_weights(torch.full((3,), -1), 2, 1.0)).all()


def test_class_balance_helps_the_rare_class(run):
    """Two overlapping classes, one nine times as frequent."""
    # With seed 0, the rare ones would be those held out.
    torch.manual_seed(6)
    color = (torch.rand(ROWS) < 0.1).long()
    table = table_of(clusters(color, IMAGE, 2.0, 1), torch.randn(ROWS, TEXT))
    recall = {}
    for balance in (0.0, 1.0):
        encoder = encoder_of({"color": ("green", "red")})
        warm_start(encoder, table)
        settings = SETTINGS.model_copy(update={"class_balance": balance, "epochs": 15})
        train_source(encoder, table, {"color": HeadLabels(("green", "red"), color)}, settings, run)
        predicted = encoder.heads["color"](embed(encoder, table)).argmax(dim=1)
        recall[balance] = float((predicted[color == 1] == 1).float().mean())
    assert recall[1.0] > recall[0.0] + 0.1


def test_patience_watches_rows_that_are_neither_learned_from_nor_reported(world, run):
    encoder, table, labels = world
    settings = SETTINGS.model_copy(update={"epochs": 60, "patience": 2, "learning_rate": 0.01})
    result = train_source(encoder, table, labels, settings, run)
    assert 3 <= len(result.losses) < 60
    assert result.accuracy["color"] > 0.6
    # Another tenth: what is reported stays the same rows.
    plain = train_source(encoder, table, labels, SETTINGS, run)
    assert result.tested == plain.tested


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_training(world, run, value):
    encoder, table, labels = world
    table.text[7] = value
    table.text_present[7] = True
    with pytest.raises(TrainingError, match="loss became nan"):
        train_source(encoder, table, labels, SETTINGS, run)


def test_without_labels_the_embedding_alone_is_trained(world, run):
    encoder, table, _ = world
    result = train_source(encoder, table, {}, SETTINGS, run)
    assert result.accuracy == result.tested == {}
    assert len(result.losses) == SETTINGS.epochs


def test_embedding_with_hidden_columns_does_not_see_them(world):
    encoder, table, _ = world
    colored = dataclasses.replace(table, attributes=table.attributes.clone())
    colored.attributes[:, ATTRIBUTE_COLUMNS.index("color")] = 5
    assert not torch.equal(embed(encoder, colored), embed(encoder, table))
    assert torch.equal(embed(encoder, colored, masked=("color",)), embed(encoder, table))
    assert (colored.attributes[:, ATTRIBUTE_COLUMNS.index("color")] == 5).all()


WARM_ROWS = 150


@pytest.fixture
def table() -> FeatureTable:
    """As real features are: of different lengths, and far from the origin."""
    kind = torch.arange(WARM_ROWS) % 6
    image = clusters(kind, IMAGE, 0.8, 1) + 3 * torch.randn(1, IMAGE)
    text = clusters(kind // 2, TEXT, 0.8, 2) + 3 * torch.randn(1, TEXT)
    return table_of(9 * image, text)


def components(rows: Tensor, share: int) -> Tensor:
    """Principal components of the normed rows by SVD, at a mean squared length of 1."""
    normed = F.layer_norm(rows, rows.shape[1:])
    centred = normed - normed.mean(dim=0)
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    length = (values[:share].square().sum() / len(rows)).sqrt()
    return centred @ directions[:share].T / length


def correlation(one: Tensor, other: Tensor) -> float:
    above = torch.triu_indices(len(one), len(one), offset=1)
    cosines = [
        (F.normalize(rows, dim=1) @ F.normalize(rows, dim=1).T)[above[0], above[1]]
        for rows in (one, other)
    ]
    return float(torch.corrcoef(torch.stack(cosines))[0, 1])


def reference(table: FeatureTable, share: dict[str, int]) -> Tensor:
    parts = []
    for name, size in share.items():
        present = getattr(table, f"{name}_present")
        part = torch.zeros(len(table), size)
        part[present] = components(getattr(table, name)[present], size)
        parts.append(part)
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("kind", ["early", "late", "attention"])
@pytest.mark.parametrize(
    "share", [{"image": IMAGE, "text": TEXT}, {"image": IMAGE}, {"text": TEXT}]
)
def test_neighbours_are_those_of_the_towers(table, share, kind):
    encoder = encoder_of({}, image="image" in share, text="text" in share, kind=kind)
    have = torch.zeros(WARM_ROWS, dtype=torch.bool)
    for name in share:
        have |= getattr(table, f"{name}_present")
    expected = reference(table, share)[have]
    at_random = correlation(embed(encoder, table)[have], expected)
    warm_start(encoder, table)
    embedding = embed(encoder, table)
    assert torch.isfinite(embedding).all()
    assert at_random < 0.9
    assert correlation(embedding[have], expected) > 0.97


def test_a_narrow_fusion_takes_the_leading_components(table):
    """In proportion to the roots of the widths: 22 and 17 of 40 coordinates."""
    encoder = encoder_of({}, width=40)
    warm_start(encoder, table)
    embedding = embed(encoder, table)
    assert correlation(embedding, reference(table, {"image": 22, "text": 17})) > 0.97
    assert embedding[:, :40].count_nonzero() > 0
    assert embedding[:, 40:].count_nonzero() == 0


def test_towers_share_no_coordinate(table):
    encoder = encoder_of({})
    warm_start(encoder, table)
    image, text = (encoder.fusion.inputs[at][1].weight.abs().sum(dim=1) > 0 for at in (1, 2))
    assert image.any()
    assert text.any()
    assert not (image & text).any()


@pytest.mark.parametrize("kind", ["early", "late", "attention"])
def test_attributes_say_little_at_the_start(table, kind):
    """A value that was never seen must not outweigh what a picture shows."""
    encoder = encoder_of({}, kind=kind)
    warm_start(encoder, table)
    bare = embed(encoder, table)
    table.attributes[:] = torch.randint(1, 64, table.attributes.shape)
    assert F.cosine_similarity(bare, embed(encoder, table)).mean() > 0.8


@pytest.mark.parametrize("gone", ["image", "text"])
def test_a_tower_whose_inputs_are_all_damaged_does_no_harm(table, gone):
    nothing = {gone: torch.zeros_like(getattr(table, gone))}
    nothing[f"{gone}_present"] = torch.zeros(WARM_ROWS, dtype=torch.bool)
    encoder = encoder_of({})
    warm_start(encoder, dataclasses.replace(table, **nothing))
    assert all(torch.isfinite(value).all() for value in encoder.state_dict().values())


def test_fewer_products_than_components(table):
    index = torch.arange(3)
    features, attributes = table.rows(index)
    few = FeatureTable(*features, attributes)
    encoder = encoder_of({})
    warm_start(encoder, few)
    assert torch.isfinite(embed(encoder, few)).all()
