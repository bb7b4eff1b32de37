import pytest
import yaml

from medfmc_hf.adaptation import methods
from medfmc_hf.errors import MedfmcError
from medfmc_hf.runs import RunConfig
from medfmc_hf.runs.recipes import read_recipe, recipe_names, recipe_of
from medfmc_hf.shipped import shipped

FILES = sorted(shipped("recipes/configs").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_recipe_is_a_run_of_a_known_method(path):
    config = RunConfig.from_dict({"subset": "endo"} | yaml.safe_load(path.read_text(encoding="utf-8")))
    methods.all_options(config.method, config.method_options)
    assert path.read_text(encoding="utf-8").startswith("# "), "a recipe says why"


def test_every_method_of_our_own_has_a_recipe():
    named = {path.stem for path in FILES}
    own = list(methods.METHODS)[: list(methods.METHODS).index("peft")]
    assert set(own) | {"ia3"} <= named


def test_the_official_recipes():
    swin = RunConfig.from_dict({"subset": "endo"} | read_recipe(shipped("recipes/configs") / "official-vpt-swin-b.yaml"))
    assert (swin.optimizer, swin.learning_rate, swin.weight_decay, swin.gradient_clip) == ("adamw", 0.05, 0.05, 5.0)
    assert (swin.epochs, swin.warmup_epochs, swin.batch_size, swin.image_size, swin.select) == (20, 20, 4, 384, "best")
    assert methods.all_options(swin.method, swin.method_options)["deep"] is False
    vit = RunConfig.from_dict({"subset": "endo"} | read_recipe(shipped("recipes/configs") / "official-vpt-vit-b.yaml"))
    assert (vit.optimizer, vit.learning_rate, vit.weight_decay, vit.method_options["num_prompts"]) == ("sgd", 6e-4, 1e-4, 1)


@pytest.mark.parametrize(("text", "says"), [("- a\n", "list"), ("a: [", "not YAML"), ("learning_rte: 1\nsubset: endo\n", "learning_rate")])
def test_a_broken_recipe_is_explained(tmp_path, text, says):
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(MedfmcError) as error:
        RunConfig("endo", recipe=str(tmp_path / "broken.yaml"))
    assert says in str(error.value)


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_that_ship_are_configs(name):
    RunConfig.from_dict({"subset": "endo"} | recipe_of(name))
