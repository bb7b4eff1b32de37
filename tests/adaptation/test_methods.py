import json

import pytest
import torch
from peft import PeftModel
from tiny_models import images, tiny

from medfmc_hf.adaptation import adapt, methods
from medfmc_hf.errors import MedfmcError
from medfmc_hf.runs import RunConfig
from medfmc_hf.runs.identity import identity


def adapted(method, options=None, name="vit"):
    torch.manual_seed(0)
    return adapt.adapt(tiny(name), method, options or {}, total_steps=10)


def trained(method, name="vit", **options):
    return {n for n, p in adapted(method, options, name).named_parameters() if p.requires_grad}


def test_what_trains():
    head = {"classifier.weight", "classifier.bias"}
    assert trained("linear-sgd") == head
    assert all(n.startswith(("vit.layers.1.", "vit.layernorm.")) for n in trained("partial", blocks=1) - head)
    assert all(n.endswith("bias") for n in trained("bitfit") - head)
    assert all("layernorm" in n for n in trained("layernorm") - head)
    assert len(trained("layernorm")) == 2 * 5 + 2
    assert not any("mask_token" in n for n in trained("full", "dinov2"))  # it reaches no logit
    targets = {"query-value": 2, "attention": 4, "mlp": 2, "all": 6}
    for choice, layers in targets.items():
        assert len([n for n in trained("lora", targets=choice) if "lora_A" in n]) == 2 * layers


def test_a_method_of_given_modules():
    assert {n.split(".lora_")[0].rpartition(".")[2] for n in trained("lora", target_modules=["k_proj"]) if "lora_" in n} == {"k_proj"}


def parts_of(model):
    """What stands inside the last block of a method that adapts it alone, as names inside the block."""
    (config,) = model.peft_config.values()
    return sorted(name.removeprefix("vit.layers.1.") for name in config.target_modules)


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("lora", ["attention.q_proj", "attention.v_proj"]),
        ("dora", ["attention.q_proj", "attention.v_proj"]),
        ("ia3", ["attention.k_proj", "attention.v_proj", "mlp.fc2"]),
        ("loha", ["attention.q_proj", "attention.v_proj"]),
        ("ln-tuning", ["layernorm_after", "layernorm_before"]),
        ("vpt", ["vit.layers.1"]),
        ("vpt-shallow", ["vit.layers.1"]),
        ("adaptformer", ["mlp"]),
        ("pfeiffer", ["mlp"]),
        ("houlsby", ["attention.o_proj", "mlp"]),
    ],
)
def test_the_last_blocks_alone_can_be_adapted(method, parts):
    model = adapted(method, {"blocks": 1})
    assert parts_of(model) == parts
    names = [n for n, p in model.named_parameters() if p.requires_grad and "classifier" not in n]
    assert names and all(".layers.1." in n for n in names)
    with pytest.raises(MedfmcError, match="from 1 to 2"):
        adapted(method, {"blocks": 3})
    with pytest.raises(MedfmcError, match="give one of them"):
        adapted(method, {"blocks": 1, "target_modules": ["q_proj"]})


@pytest.mark.parametrize("name", ["vit", "swin"])
@pytest.mark.parametrize("method", ["adaptformer", "pfeiffer", "houlsby", "lora"])
def test_all_blocks_named_are_all_blocks(name, method):
    """The number of all blocks is the default said in another way."""
    count = 4 if name == "swin" else 2
    x = images(name)
    with torch.no_grad():
        assert torch.equal(adapted(method, {"blocks": count}, name)(x).logits, adapted(method, {}, name)(x).logits)
    assert trained(method, name, blocks=count) == trained(method, name)


@pytest.mark.parametrize(
    ("short", "options"),
    [
        ("vera", {"r": 16}),
        ("loha", {"r": 3, "targets": "all"}),
        ("boft", {"blocks": 1}),
        ("ia3", {}),
        ("ln-tuning", {}),
        ("oft", {"target_modules": ["k_proj"]}),
    ],
)
def test_a_peft_type_by_its_name_is_short_for_method_peft(short, options):
    long = {"config": {"peft_type": short.upper().replace("-", "_"), **options}}
    first, second = adapted(short, options), adapted("peft", long)
    assert first.peft_config["default"].to_dict() == second.peft_config["default"].to_dict()
    assert first.state_dict().keys() == second.state_dict().keys()
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_our_tuners_go_to_their_own_places_in_method_peft_too():
    bottleneck = adapted("peft", {"config": {"peft_type": "BOTTLENECK", "style": "houlsby"}})
    assert bottleneck.peft_config["default"].target_modules == adapted("houlsby").peft_config["default"].target_modules
    prompts = adapted("peft", {"config": {"peft_type": "VPT", "num_prompts": 2}})
    assert prompts.peft_config["default"].target_modules == {"vit.layers.0", "vit.layers.1"}


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING", "XLORA", "POLY", "TRAINABLE_TOKENS", "ADAPTION_PROMPT", "SHADOW"])
def test_methods_of_language_models_are_refused(kind):
    with pytest.raises(MedfmcError, match="refuses the layers"):
        adapted("peft", {"config": {"peft_type": kind}})
    with pytest.raises(MedfmcError, match="there is no method"):
        methods.method_of(kind.lower().replace("_", "-"))


def test_a_short_form_keeps_its_name_in_the_config_and_the_id():
    config = RunConfig("endo", method="vera", method_options={"r": 16})
    assert (config.method, dict(config.method_options)) == ("vera", {"r": 16})
    assert methods.resolve("vera", {"r": 16}) == {"r": 16}
    assert identity(config, "data", "backbone") == "054085067f214238"


def test_any_peft_method_from_a_file(tmp_path):
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({"peft_type": "LOHA", "r": 3, "base_model_name_or_path": "elsewhere"}))
    options = methods.resolve("peft", {"config": str(path)})
    assert options == {"config": {"peft_type": "LOHA", "r": 3}}
    model = adapted("peft", {"config": str(tmp_path)})
    assert isinstance(model, PeftModel) and model.peft_config["default"].peft_type == "LOHA"
    assert model.peft_config["default"].r == 3
    with pytest.raises(MedfmcError, match="expected an adapter_config"):
        methods.resolve("peft", {"config": str(tmp_path / "none.json")})
    path.write_text("{")
    with pytest.raises(MedfmcError, match="is not JSON"):
        methods.resolve("peft", {"config": str(path)})
    with pytest.raises(MedfmcError, match="peft_type"):
        adapted("peft", {"config": {"r": 3}})


def test_options_over_the_defaults():
    options = methods.all_options("dora", {"r": 4})
    assert (options["r"], options["lora_alpha"], options["use_dora"], options["targets"]) == (4, 16, True, "query-value")
    assert methods.all_options("knn", {}) == {"k": 10, "temperature": 10.0}
    with pytest.raises(MedfmcError, match="no option rank; it knows targets"):
        methods.all_options("vera", {"rank": 4})
    with pytest.raises(MedfmcError, match="it knows none"):
        methods.all_options("full", {"rank": 4})


def test_methods_by_gradient_and_on_frozen_features():
    frozen = [name for name in methods.METHODS if methods.method_of(name).kind == "frozen"]
    assert frozen == ["prototype", "linear", "knn"]
    with pytest.raises(MedfmcError, match=r"known: prototype, linear, .*, peft, adalora, .*, vera"):
        methods.method_of("lorra")


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("lora", {"r": "8"}, "option r of method lora is a whole number; got '8'"),
        ("lora", {"lora_dropout": "high"}, "option lora_dropout of method lora is a number"),
        ("lora", {"use_dora": "yes"}, "use_dora of method lora is true or false"),
        ("lora", {"bias": "some"}, "one of none, all, lora_only"),
        ("vpt", {"num_prompts": 2.5}, "num_prompts of method vpt is a whole number"),
        ("vera", {"target_modules": 3}, "target_modules of method vera"),
        ("partial", {"blocks": 0}, "blocks of method partial is a whole number of at least 1 or none"),
        ("partial", {"blocks": True}, "blocks of method partial"),
        ("knn", {"k": 0}, "k of method knn is a whole number of at least 1"),
        ("linear", {"C": -1}, "C of method linear is a number above 0"),
        ("peft", {"config": {"peft_type": "LORA", "r": "8"}}, "option r of LORA is a whole number"),
        ("peft", {"config": {"peft_type": "LORA", "lora_alpah": 8}}, "LORA has no option lora_alpah"),
        ("peft", {"config": {"r": 8}}, "needs the option `config`"),
        ("peft", {"config": ["LORA"]}, "option config of method peft"),
    ],
)
def test_values_of_options_are_checked_before_anything_is_loaded(method, options, said):
    with pytest.raises(MedfmcError, match=said):
        methods.resolve(method, options)


def test_one_value_has_one_form_and_one_id():
    assert repr(methods.resolve("knn", {"temperature": 10})) == repr(methods.resolve("knn", {"temperature": 10.0}))


def test_what_a_newer_peft_writes_and_leaves_off_is_passed_over():
    config = {"peft_type": "LORA", "r": 4, "use_what_comes_next": False, "of_the_future": None, "peft_version": "9.0"}
    assert methods.resolve("peft", {"config": config})["config"] == {"peft_type": "LORA", "r": 4}
