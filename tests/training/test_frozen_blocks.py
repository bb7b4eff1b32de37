import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from medfmc_hf.adaptation import adapt
from medfmc_hf.images.processing import Processing
from medfmc_hf.images.views import TrainingPixels
from medfmc_hf.models.backbones import load_backbone
from medfmc_hf.runs import RunConfig, load_predictions
from medfmc_hf.subsets import SUBSETS, ConfigName
from medfmc_hf.training import frozen_blocks
from medfmc_hf.training.one_run import train
from medfmc_hf.training.shared import Shared

PROCESS = Processing(height=56, width=56, resize=(56, 56))
SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 56, "patch_size": 14}
TOKENS = ["ViT", "Dinov2", "Dinov2WithRegisters", "DeiT", "Beit", "SiglipVision"]


def backbone(kind: str, folder):
    import transformers

    torch.manual_seed(0)
    if kind == "Swin":
        config = transformers.SwinConfig(embed_dim=16, depths=[1, 2], num_heads=[2, 2], image_size=56, window_size=7, patch_size=4)
    else:
        config = getattr(transformers, f"{kind}Config")(**SMALL)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    return load_backbone(str(folder), SUBSETS["endo"])


@pytest.mark.parametrize("kind", TOKENS)
def test_frozen_blocks_and_rest_make_the_whole(kind, tmp_path):
    model = backbone(kind, tmp_path)
    images = torch.randn(4, 3, 56, 56)
    for method, options, length in [("partial", {"blocks": 2}, 1), ("partial", {"blocks": 1}, 2), ("linear-sgd", {}, 4)]:
        adapted = adapt.adapt(model, method, options).eval()
        network = frozen_blocks.split(adapted, PROCESS)
        assert isinstance(network, frozen_blocks.SplitNetwork) and network.length == length
        cached = network.frozen(images)
        assert cached.ndim == (2 if method == "linear-sgd" else 3)
        torch.testing.assert_close(network(cached).logits, adapted(pixel_values=images).logits)
        network(cached).logits.sum().backward()
        assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad)
        adapted.zero_grad(set_to_none=True)
        model = adapt.unload(adapted)


@pytest.mark.parametrize("method", ["lora", "vpt", "vpt-shallow", "adaptformer", "bitfit", "layernorm", "full"])
def test_methods_that_reach_the_first_block_have_no_frozen_blocks(method, tmp_path):
    adapted = adapt.adapt(backbone("ViT", tmp_path), method)
    assert frozen_blocks.split(adapted, PROCESS) is adapted


@pytest.mark.parametrize("method", ["lora", "vpt", "adaptformer"])
def test_adapters_of_the_last_block_have_a_frozen_blocks(method, tmp_path):
    adapted = adapt.adapt(backbone("ViT", tmp_path), method, {"blocks": 1}).eval()
    network, images = frozen_blocks.split(adapted, PROCESS), torch.randn(2, 3, 56, 56)
    assert network.length == 2
    torch.testing.assert_close(network(network.frozen(images)).logits, adapted(pixel_values=images).logits)


def test_windows_are_not_cut_but_their_head_is(tmp_path):
    model = backbone("Swin", tmp_path)
    assert frozen_blocks.split(adapt.adapt(model, "partial"), PROCESS) is model
    network = frozen_blocks.split(adapt.adapt(adapt.unload(model), "linear-sgd"), PROCESS)
    images = torch.randn(2, 3, 56, 56)
    torch.testing.assert_close(network(network.frozen(images)).logits, network(images).logits)


def test_a_network_that_does_otherwise_is_left_whole(tmp_path):
    model = backbone("ViT", tmp_path)
    layers = model.get_submodule("vit.layers" if hasattr(model.vit, "layers") else "vit.encoder.layer")
    layers[2].register_forward_pre_hook(lambda module, args: (args[0] + torch.randn_like(args[0]), *args[1:]))
    adapted = adapt.adapt(model, "partial")
    assert frozen_blocks.split(adapted, PROCESS) is adapted


def test_cached_views_choose_the_view_that_fixed_views_choose(sample_build, tmp_path):
    rows = Shared(sample_build).splits(ConfigName("retino", 1, 0))["train"]
    views = TrainingPixels(rows, PROCESS, augmentation="fixed-views")
    fixed = frozen_blocks._FixedViews(views)
    assert len(set(fixed.identities)) == 4 * len(set(views.identities))

    class CachedRows:
        def __getitem__(self, rows):
            return fixed[rows.tolist()]

    order = [2, 0, 1, 2, 2, 0]
    chosen = [source.batch(order, [3, 1, 4, 1, 5, 9]) for source in (views, frozen_blocks.CachedViews(CachedRows(), 4))]
    assert torch.equal(*chosen)


class BlockCounter:
    """How many images went through each block of vision transformers while it was on."""

    def __init__(self):
        self.counts: dict[int, int] = {}
        self._hook = register_module_forward_hook(self._count)

    def _count(self, module, args, output):
        if type(module).__name__ == "ViTLayer" and "forward" not in module.__dict__:
            self.counts[id(module)] = self.counts.get(id(module), 0) + len(args[0])

    def close(self) -> list[int]:
        self._hook.remove()
        return list(self.counts.values())


@pytest.mark.parametrize("augmentation", ["fixed-views", "none"])
def test_each_image_goes_through_the_frozen_blocks_once(augmentation, sample_build, tiny_backbone, tmp_path, monkeypatch):
    """K runs of the last k of L blocks: each image goes through the frozen blocks once, and through the rest once a run and epoch."""
    shared = Shared(sample_build, cache=tmp_path / "cache")
    config = RunConfig(
        subset="retino", shots=1, model=str(tiny_backbone), method="partial", epochs=3, batch_size=4, augmentation=augmentation
    )
    folders = []
    counter = BlockCounter()
    for rate in (1e-3, 2e-3, 3e-3):
        one = RunConfig(**{**config.to_dict(), "learning_rate": rate})
        folders.append(train(one, shared=shared, out=tmp_path / "runs")[0])
    counts = counter.close()
    splits = shared.splits(config.dataset_config)
    n_train, n_test, views = len(splits["train"]), len(splits["test"]), 4 if augmentation == "fixed-views" else 1
    once, often = n_test + views * n_train, 3 * (n_test + 3 * n_train)
    tried = 3 * len(folders) + 3  # one image each: adapt, is_exact twice; once the shape of the outputs, and the class token twice
    assert len(counts) == 4
    assert all(once <= count <= once + tried for count in counts[:3])
    assert often <= counts[3] <= often + tried

    monkeypatch.setattr(frozen_blocks, "split", lambda model, process: model)
    whole, _ = train(one, shared=Shared(sample_build, cache=tmp_path / "cache"), out=tmp_path / "whole")
    np.testing.assert_allclose(load_predictions(whole).logits, load_predictions(folders[-1]).logits, atol=2e-4)
