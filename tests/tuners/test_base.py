"""PEFT's operations on adapters, for both tuners."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from patience import PATIENCE
from peft import PeftModel, get_peft_model
from safetensors import safe_open
from tiny_models import images, stir, tiny

from medfmc_hf.errors import MedfmcError
from medfmc_hf.tuners import BottleneckConfig, VptConfig

CONFIGS = {
    "vpt": lambda: VptConfig(num_prompts=3),
    "vpt-shallow": lambda: VptConfig(num_prompts=2, deep=False),
    "vpt-projection": lambda: VptConfig(num_prompts=3, projection=5),
    "adaptformer": lambda: BottleneckConfig(bottleneck_dim=4),
    "houlsby": lambda: BottleneckConfig(style="houlsby", bottleneck_dim=4),
}
WINDOWED = [(kind, name) for kind in CONFIGS for name in ("vit", "swin") if (kind, name) != ("vpt-projection", "swin")]
both = pytest.mark.parametrize(("kind", "name"), WINDOWED)


def logits(model, x):
    with torch.no_grad():
        return model.eval()(pixel_values=x).logits


@both
def test_gradients_reach_the_adapter_and_the_head_and_nothing_else(kind, name):
    model = get_peft_model(tiny(name), CONFIGS[kind]())
    stir(model)
    model.train()(pixel_values=images(name)).logits.square().sum().backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(".vpt_" in n or ".bottleneck_" in n or "classifier.modules_to_save" in n for n in reached)
    assert any("classifier" in n for n in reached)


@both
def test_saved_bytes_hold_the_adapter_and_the_head_only(kind, name, tmp_path):
    model = get_peft_model(tiny(name), CONFIGS[kind]())
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118  a file has no iterator
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert all("vpt_" in key or "bottleneck_" in key or "classifier" in key for key in shapes)


@both
def test_disable_switch_delete_and_unload(kind, name):
    x, base = images(name), tiny(name)
    weights = {n: v.clone() for n, v in base.state_dict().items()}
    for p in base.parameters():
        p.requires_grad_(False)
    bare = logits(base, x)
    model = get_peft_model(base, CONFIGS[kind]())
    stir(model)
    first = logits(model, x)
    with model.disable_adapter():
        assert torch.allclose(logits(model, x), bare, atol=1e-6)
    assert torch.equal(logits(model, x), first)
    model.add_adapter("second", CONFIGS[kind]())
    assert torch.equal(logits(model, x), first)
    assert not any(p.requires_grad for n, p in model.named_parameters() if "second" in n)
    model.set_adapter("second")
    stir(model)
    second = logits(model, x)
    assert not torch.allclose(first, second, atol=1e-3)
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".default" in n)
    model.set_adapter("default")
    assert torch.equal(logits(model, x), first)
    model.delete_adapter("second")
    assert torch.equal(logits(model, x), first)
    left = model.unload().state_dict()
    assert left.keys() == weights.keys()
    assert all(torch.equal(v, weights[n]) for n, v in left.items() if "classifier" not in n)


def test_a_second_adapter_of_another_shape():
    x = images("beit")
    model = get_peft_model(tiny("beit"), VptConfig(num_prompts=3))
    model.add_adapter("shallow", VptConfig(num_prompts=5, deep=False))
    model.set_adapter("shallow")
    assert logits(model, x).shape == (3, 4)
    assert len([n for n, p in model.named_parameters() if p.requires_grad and "vpt_prompts" in n]) == 1
    with pytest.raises(MedfmcError, match="one adapter at a time"):
        model.base_model.set_adapter(["default", "shallow"])


def test_bottlenecks_of_different_styles_in_one_model():
    x = images("vit")
    model = get_peft_model(tiny("vit"), BottleneckConfig(bottleneck_dim=4))
    stir(model)
    first = logits(model, x)
    model.add_adapter("serial", BottleneckConfig(style="houlsby", bottleneck_dim=4))
    model.set_adapter("serial")
    stir(model)
    alone = get_peft_model(tiny("vit"), BottleneckConfig(style="houlsby", bottleneck_dim=4))
    weights = {n.replace(".serial", ".default"): v for n, v in model.state_dict().items() if ".serial" in n}
    alone.load_state_dict(weights, strict=False)
    assert torch.allclose(logits(model, x), logits(alone, x), atol=1e-6)
    model.set_adapter("default")
    assert torch.equal(logits(model, x), first)


@both
def test_a_new_process_needs_one_import(kind, name, tmp_path):
    base, x = tiny(name), images(name)
    base.save_pretrained(tmp_path / "base")
    model = get_peft_model(base, CONFIGS[kind]())
    stir(model)
    model.save_pretrained(tmp_path / "adapter")
    torch.save((x, logits(model, x)), tmp_path / "expected.pt")
    other = PeftModel.from_pretrained(tiny(name), tmp_path / "adapter")
    assert torch.allclose(logits(other, x), logits(model, x), atol=1e-6)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_type"] in ("VPT", "BOTTLENECK")
    if (kind, name) != ("vpt", "vit"):  # one process is enough
        return
    script = """if True:
        import sys, torch, medfmc_hf.tuners
        from peft import PeftModel
        from transformers import AutoModelForImageClassification
        folder = sys.argv[1]
        model = PeftModel.from_pretrained(AutoModelForImageClassification.from_pretrained(folder + "/base"), folder + "/adapter").eval()
        x, expected = torch.load(folder + "/expected.pt")
        with torch.no_grad():
            assert torch.allclose(model(pixel_values=x).logits, expected, atol=1e-6)
    """
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, timeout=PATIENCE)


@both
def test_bfloat16(kind, name):
    model = get_peft_model(tiny(name).to(torch.bfloat16), CONFIGS[kind]())
    output = model.train()(pixel_values=images(name).to(torch.bfloat16)).logits
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert all(p.dtype == torch.float32 for n, p in model.named_parameters() if "vpt_prompts" in n or "bottleneck_" in n)


@both
def test_gradient_checkpointing_changes_no_gradient(kind, name):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = get_peft_model(tiny(name), CONFIGS[kind]())
        stir(model)
        for part in model.modules():
            if "drop_path" in type(part).__name__.lower() or "droppath" in type(part).__name__.lower():
                part.drop_prob = 0.0
        if checkpointing:
            model.get_base_model().gradient_checkpointing_enable()
        model.train()(pixel_values=images(name)).logits.square().sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    for n, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][n], atol=1e-5), n


@pytest.mark.parametrize(("kind", "name"), [("vpt", "vit"), ("vpt-shallow", "vit"), ("adaptformer", "vit"), ("vpt", "swin")])
def test_no_graph_break_of_ours(kind, name):
    x = images(name)
    breaks = [
        torch._dynamo.explain(model.eval())(pixel_values=x).graph_break_count
        for model in (tiny(name), get_peft_model(tiny(name), CONFIGS[kind]()).get_base_model())
    ]
    assert breaks[1] <= breaks[0]


@pytest.mark.parametrize("kind", CONFIGS)
def test_merging_is_refused_with_a_reason(kind):
    model = get_peft_model(tiny("vit"), CONFIGS[kind]())
    for merge in (model.merge_and_unload, model.merge_adapter):
        with pytest.raises(MedfmcError, match=r"cannot be merged into the backbone: .+ Keep the adapter"):
            merge()


def test_mixed_batches_are_refused():
    with pytest.raises(MedfmcError, match="does not support mixed batches"):
        get_peft_model(tiny("vit"), VptConfig())(pixel_values=images("vit"), adapter_names=["default"] * 3)


def test_other_modules_can_be_trained_too():
    model = get_peft_model(tiny("vit"), VptConfig(modules_to_save=["classifier", "layernorm"]))
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert any("vit.layernorm.modules_to_save" in n for n in trained)
    assert any("classifier.modules_to_save" in n for n in trained)


def test_it_says_what_it_targeted(capsys):
    get_peft_model(tiny("vit"), VptConfig(num_prompts=8))
    assert "8 prompts" in (said := capsys.readouterr().err)
    assert "vit.layers.0 .. vit.layers.1" in said
    assert "classifier" in said


_IN_TWO_PROCESSES = """
import os
import sys
import torch
from accelerate import Accelerator
from peft import get_peft_model
sys.path.insert(0, sys.argv[1])
from tiny_models import images, tiny
from medfmc_hf.tuners import VptConfig

torch.manual_seed(0)
accelerator = Accelerator(cpu=True)
model = get_peft_model(tiny("vit"), VptConfig(num_prompts=2))
model, optimizer = accelerator.prepare(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1))
before = next(p.detach().clone() for n, p in model.named_parameters() if "vpt_prompts" in n)
accelerator.backward(model(pixel_values=images("vit", 4)[accelerator.process_index :: 2]).logits.square().mean())
optimizer.step()
after = next(p.detach() for n, p in model.named_parameters() if "vpt_prompts" in n)
everywhere = accelerator.gather(after[None])
assert accelerator.num_processes == 2 and type(model).__name__ == "DistributedDataParallel"
assert torch.equal(everywhere[0], everywhere[1]) and not torch.equal(before, after)
accelerator.wait_for_everyone()
os._exit(0)  # skips torch's cleanup at exit, in which gloo's threads sometimes abort the process on a busy machine
"""


def test_two_processes_stay_alike(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(_IN_TWO_PROCESSES)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    launch += [str(script), str(Path(__file__).parents[1])]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
