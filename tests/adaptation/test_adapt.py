import pytest
import torch
from tiny_models import images, tiny
from torch.utils._python_dispatch import TorchDispatchMode

from medfmc_hf.adaptation import adapt
from medfmc_hf.errors import MedfmcError
from medfmc_hf.models import backbones
from medfmc_hf.subsets import SUBSETS

ENDO = SUBSETS["endo"]
OURS = (
    "linear-sgd",
    "full",
    "partial",
    "bitfit",
    "layernorm",
    "lora",
    "dora",
    "vpt",
    "vpt-shallow",
    "adaptformer",
    "houlsby",
    "ia3",
    "adalora",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("backbones")
    for name in ("vit", "swin", "resnet", "dinov2"):
        tiny(name, classes=7).save_pretrained(root / name)
    return root


def load(folders, name="vit"):
    torch.manual_seed(0)
    return backbones.load_backbone(str(folders / name), ENDO)


def train(model, x):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    model.train()(pixel_values=x).logits.square().sum().backward()
    assert all(p.grad is not None for p in parameters)
    optimizer.step()
    return model.eval()


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("name", ["vit", "swin", "resnet"])
def test_train_save_load_and_strip(folders, tmp_path, name, method):
    backbone, x = load(folders, name), images(name)
    before = {n: v.clone() for n, v in backbone.state_dict().items()}
    try:
        model = adapt.adapt(backbone, method, total_steps=10)
    except MedfmcError:
        assert name == "resnet" and method in ("vpt", "vpt-shallow", "adaptformer", "houlsby")
        assert all(torch.equal(v, before[n]) for n, v in backbone.state_dict().items())
        return
    train(model, x)
    adapt.after_step(model, 1)
    with torch.no_grad():
        expected = model(pixel_values=x).logits
        files = adapt.save(model, tmp_path)
        assert torch.allclose(adapt.load(tmp_path)(pixel_values=x).logits, expected, atol=1e-6)
    assert all(file.is_file() for file in files)
    after = adapt.unload(model).state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(v, before[n]) for n, v in after.items())


def test_a_backbone_can_be_shared_by_runs(folders):
    x, alone = images("vit"), []
    for seed in (1, 2):
        backbone = load(folders)
        adapt.reset_head(backbone, seed)
        torch.manual_seed(seed)
        alone.append(train(adapt.adapt(backbone, "lora"), x)(pixel_values=x).logits)
    backbone = load(folders)
    for seed, expected in zip((1, 2), alone):
        adapt.reset_head(backbone, seed)
        torch.manual_seed(seed)
        model = train(adapt.adapt(backbone, "lora"), x)
        assert torch.equal(model(pixel_values=x).logits, expected)
        backbone = adapt.unload(model)


def test_adapters_leave_batch_norm_alone(folders):
    for method, moves in (("lora", False), ("linear-sgd", False), ("full", True)):
        model = adapt.adapt(load(folders, "resnet"), method)
        before = {n: b.clone() for n, b in model.named_buffers() if "running" in n}
        model.train()(pixel_values=images("resnet"))
        assert any(not torch.equal(b, before[n]) for n, b in model.named_buffers() if "running" in n) == moves


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("lorra", {}, "known: prototype, linear"),
        ("lora", {"rank": 8}, "no option rank; it knows"),
        ("lora", {"targets": "everything"}, "query-value, attention, mlp, all"),
        ("lora", {"r": -1}, "PEFT"),
        ("partial", {"blocks": 3}, "from 1 to 2"),
        ("linear", {}, "trains no network"),
        ("adalora", {}, "total_steps"),
    ],
)
def test_mistakes_are_explained_and_leave_the_backbone_whole(folders, method, options, said):
    backbone = load(folders)
    names = list(backbone.state_dict())
    with pytest.raises(MedfmcError, match=said):
        adapt.adapt(backbone, method, options)
    assert list(backbone.state_dict()) == names
    adapt.adapt(backbone, "lora")


def test_loading_what_is_not_there(folders, tmp_path):
    with pytest.raises(MedfmcError, match="no saved adaptation"):
        adapt.load(tmp_path)
    adapt.save(load(folders), tmp_path)
    with pytest.raises(MedfmcError, match="train-free"):
        adapt.load(tmp_path)
    adapt.save(adapt.adapt(load(folders), "partial"), tmp_path)
    with pytest.raises(MedfmcError, match="does not fit"):
        adapt.load(tmp_path, model=str(folders / "swin"))


class OnAnotherDevice(TorchDispatchMode):
    """Refuses what CUDA refuses: random numbers for the tensors of a model by a generator of the CPU."""

    def __init__(self, model):
        super().__init__()
        self.theirs = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        tensors = [value for value in (*arguments, *options.values()) if isinstance(value, torch.Tensor)]
        if options.get("generator") is not None and any(value.untyped_storage().data_ptr() in self.theirs for value in tensors):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        return function(*arguments, **options)


def test_a_head_is_initialised_for_a_model_that_another_run_left_on_a_gpu():
    model = tiny("vit")
    with OnAnotherDevice(model), pytest.raises(RuntimeError, match="generator"):
        model.classifier.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    with OnAnotherDevice(model):
        adapt.reset_head(model, 3)
    expected = torch.empty(4, 16).normal_(0, 0.02, generator=torch.Generator().manual_seed(3))
    assert torch.equal(model.classifier.weight, expected) and not model.classifier.bias.any()


def test_a_model_that_was_trained_whole_is_saved_as_transformers_saves_it(folders, tmp_path):
    from transformers import AutoModelForImageClassification

    model = adapt.adapt(load(folders), "full")
    adapt.save(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"backbone.json", "config.json", "model.safetensors"}
    x = torch.randn(2, 3, model.origin.image_size, model.origin.image_size)
    with torch.no_grad():
        expected = model.eval()(pixel_values=x).logits
        for loaded in (adapt.load(tmp_path), AutoModelForImageClassification.from_pretrained(tmp_path)):
            assert torch.allclose(loaded.eval()(pixel_values=x).logits, expected, atol=1e-6)
    assert str(folders) not in (tmp_path / "config.json").read_text(), "the place of the backbone on this machine is nobody's business"
