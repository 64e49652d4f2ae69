import pytest
import torch
from torch import nn

from export.graphs import write_torchscript
from export.run import subjects
from newshelf.nn.checkpoint import load_checkpoint


class Window(nn.Module):
    """Makes a tensor of its own, on its input's device, as attention masks do."""

    def forward(self, rows):
        return rows + torch.arange(rows.shape[0], device=rows.device).unsqueeze(1)


def devices(graph):
    return [
        node
        for node in graph.findAllNodes("prim::Constant")
        if str(node.output().type()) == "Device"
    ]


def test_trace_writes_the_device_down(tmp_path):
    # The reason for the rewriting below; if this fails, it may go.
    traced = torch.jit.trace(Window(), torch.rand(3, 2), check_trace=False)
    assert devices(traced.graph)


def test_written_graph_takes_its_device_from_its_input(tmp_path):
    path = tmp_path / "window.pt"
    write_torchscript(Window().eval(), (torch.rand(3, 2),), path)
    loaded = torch.jit.load(path)
    assert not devices(loaded.graph)
    assert loaded(torch.rand(5, 2, device="meta")).device.type == "meta"
    torch.testing.assert_close(loaded(torch.zeros(2, 1)), torch.tensor([[0.0], [1.0]]))


def test_no_exported_graph_holds_a_device(exported):
    for name in ("encoder", "projector", "scorer"):
        assert not devices(torch.jit.load(exported / f"{name}.pt").graph)


def test_graphs_hold_their_weights_as_constants(exported):
    assert not list(torch.jit.load(exported / "encoder.pt").parameters())


@pytest.mark.parametrize("at", [0, 1, 2])
def test_example_sizes_are_distinct_where_they_may_change(checkpoint_dir, at):
    subject = subjects(load_checkpoint(checkpoint_dir))[at]
    sizes = {
        name: tensor.shape[dimension]
        for tensor, axes in zip(subject.example, subject.axes, strict=True)
        for dimension, name in axes.items()
    }
    assert len(set(sizes.values())) == len(sizes)
    assert min(sizes.values()) > 1


def test_the_exported_text_tower_attends_by_one_kernel(exported, checkpoint_dir, tmp_path):
    graph = torch.jit.load(exported / "encoder.pt").graph
    assert graph.findAllNodes("aten::scaled_dot_product_attention")
    # The network itself stays as the other exporter wants it.
    tower = load_checkpoint(checkpoint_dir).encoder.text_tower
    write_torchscript(tower, (torch.ones((2, 5), dtype=torch.int64),) * 2, tmp_path / "text.pt")
    assert tower.backbone.config._attn_implementation == "eager"
