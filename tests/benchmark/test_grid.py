import pytest

from medfmc_hf.benchmark.grid import Grid, grid_files, read_grid
from medfmc_hf.errors import MedfmcError
from medfmc_hf.runs import RunConfig

MINIMAL = {"backbones": ["some/backbone"], "methods": ["linear"]}


def test_axes_left_out_are_whole():
    configs = Grid.from_dict(MINIMAL).configs()
    assert len(configs) == 5 * 3 * 5
    assert len({config.dataset_config for config in configs}) == 75
    assert {(config.method, config.model) for config in configs} == {("linear", "some/backbone")}


def test_a_single_value_is_a_list_of_one():
    (config,) = Grid.from_dict(MINIMAL | {"subsets": "endo", "shots": 5, "seeds": 3}).configs()
    assert (config.subset, config.shots, config.seed) == ("endo", 5, 3)


def test_all_shots_are_the_whole_pool():
    (config,) = Grid.from_dict(MINIMAL | {"subsets": "endo", "shots": "all", "seeds": 0}).configs()
    assert config.shots is None and str(config.dataset_config) == "endo"


def test_the_more_specific_option_wins():
    grid = {
        "backbones": [{"model": "some/backbone", "image_size": 384}],
        "methods": ["lora", {"method": "lora", "epochs": 7, "image_size": 512, "method_options": {"r": 3}}],
        "subsets": "endo", "shots": 5, "seeds": 0,
        "overrides": {"epochs": 5, "image_size": 256, "method_options": {"r": 2, "lora_alpha": 4}},
    }  # fmt: skip
    plain, own = Grid.from_dict(grid).configs()
    assert (plain.epochs, plain.image_size, own.epochs, own.image_size) == (5, 384, 7, 512)
    assert plain.method_options["r"] == 2 and own.method_options["r"] == 3
    assert own.method_options["lora_alpha"] == 4, "options of a method are merged one by one"
    assert plain.learning_rate == 1e-3, "what nothing overrides is the recipe's"


def test_a_recipe_is_a_method_too():
    (config,) = Grid.from_dict(MINIMAL | {"methods": "official-vpt-vit-b", "subsets": "endo", "shots": 5, "seeds": 0}).configs()
    assert (config.method, config.protocol, config.optimizer) == ("vpt-shallow", "official", "sgd")
    assert config.model == "some/backbone", "the grid's backbone, not the recipe's"


def test_the_same_run_twice_is_once():
    assert len(Grid.from_dict(MINIMAL | {"methods": ["linear", {"method": "linear"}], "seeds": 0, "shots": 1}).configs()) == 5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"subset": ["endo"]}, "it knows backbones, methods, subsets, shots, seeds, repeat, overrides"),
        ({"methods": []}, "no methods"),
        ({"backbones": None}, "no backbones"),
        ({"overrides": {"epoch": 3}}, "epochs"),
        ({"overrides": {"seed": 3}}, "unknown key seed in overrides"),
        ({"overrides": [1]}, "overrides"),
        ({"methods": [{"method": "lora", "lr": 1}]}, "learning_rate"),
        ({"methods": [{"name": "lora"}]}, "key method"),
        ({"backbones": [{"model": "a/b", "size": 3}]}, "image_size"),
        ({"subsets": ["brain"]}, "chest"),
        ({"subsets": []}, "empty"),
        ({"shots": "many"}, "all"),
        ({"shots": [3]}, "shots is one of"),
        ({"overrides": {"protocol": "official"}}, "not in the challenge"),
    ],
)
def test_mistakes_are_explained(change, says):
    with pytest.raises(MedfmcError) as error:
        Grid.from_dict(MINIMAL | change).configs()
    assert says in str(error.value)


@pytest.mark.parametrize(("text", "says"), [("a: [", "not YAML"), ("- endo", "list"), ("colour: red", "colour")])
def test_files_that_are_not_a_grid(tmp_path, text, says):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(MedfmcError, match=says) as error:
        read_grid(path)
    assert str(path) in str(error.value)


def test_a_missing_grid_file(tmp_path):
    with pytest.raises(MedfmcError, match=r"peft\.yaml"):
        read_grid(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", grid_files(), ids=lambda path: path.stem)
def test_every_shipped_grid_is_valid(path):
    from medfmc_hf.adaptation.adapt import all_options

    configs = read_grid(path).configs()
    assert configs and all(isinstance(config, RunConfig) for config in configs)
    for config in configs:
        all_options(config.method, config.method_options)
    said = [int(word) for word in path.read_text().split() if word.isdecimal()]
    assert len(configs) in said or path.stem == "quick", "the comment of the file says how many runs it is"


def test_a_grid_repeats_the_training_of_each_split():
    configs = Grid.from_dict({"backbones": "a/b", "methods": "lora", "subsets": "endo", "shots": 5, "seeds": [0, 1], "repeat": 3}).configs()
    assert [(c.seed, c.seed_of_training) for c in configs] == [(0, 0), (0, 100), (0, 200), (1, 1), (1, 101), (1, 201)]
    assert len({str(c.dataset_config) for c in configs}) == 2
    for repeat in (0, True, "three"):
        with pytest.raises(MedfmcError, match="repeat"):
            Grid.from_dict({"backbones": "a/b", "methods": "lora", "repeat": repeat}).configs()
