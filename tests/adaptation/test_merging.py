import pytest
import torch
from tiny_models import images, stir, tiny

from medfmc_hf.adaptation import adapt
from medfmc_hf.adaptation.merging import merged


def stirred(method):
    torch.manual_seed(0)
    model = adapt.adapt(tiny("vit"), method).eval()
    stir(model)
    return model, {name: value.clone() for name, value in model.state_dict().items()}


@torch.no_grad()
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_merging_changes_rounding_alone_and_leaves_no_trace(method):
    model, before = stirred(method)
    x = images("vit")
    apart = model(pixel_values=x).logits
    with merged(model):
        together = model(pixel_values=x).logits
        weight = next(name for name in before if name.endswith("base_layer.weight"))
        assert not torch.equal(model.state_dict()[weight], before[weight]), "it was merged"
    torch.testing.assert_close(apart, together, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(pixel_values=x).logits, apart)


def test_an_error_inside_leaves_no_trace_either():
    model, before = stirred("lora")
    with pytest.raises(KeyboardInterrupt), merged(model):
        raise KeyboardInterrupt
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("method", ["vpt", "houlsby", "full", "oft"])
def test_other_methods_stay_as_they_are(method):
    model, before = stirred(method)
    with merged(model):
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_adapters_that_are_off_stay_off():
    model, before = stirred("lora")
    with model.disable_adapter(), merged(model):
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
