from dataclasses import replace

from medfmc_hf.runs import RunConfig, identity
from medfmc_hf.runs.identity import BORN, NAMES, WRITTEN_DOWN

CONFIG = RunConfig("endo", seed=1, model="somewhere/backbone", method_options={"r": 4})


def test_it_depends_on_what_determines_the_result_alone():
    first = identity(CONFIG, "data", "backbone")
    assert identity(replace(CONFIG, model="elsewhere/same"), "data", "backbone") == first
    others = {identity(CONFIG, "rows", "backbone"), identity(CONFIG, "data", "weights")}
    for change in ({"seed": 2}, {"training_seed": 2}, {"epochs": 3}, {"dtype": "bfloat16"}, {"method_options": {"r": 8}}):
        others.add(identity(replace(CONFIG, **change), "data", "backbone"))
    assert first not in others and len(others) == 7


def test_every_option_has_a_default_that_it_was_born_with():
    assert set(WRITTEN_DOWN) | set(NAMES) | {"subset"} == set(CONFIG.to_dict())


def test_ids_of_this_schema_stay_what_they_are():
    """Written down when the schema was made: a change here makes every finished run of every user a new one."""
    plain = RunConfig("endo", method="lora", recipe="none")
    assert identity(plain, "data", "backbone") == "2c2c5e0a5c9124ab"
    other = RunConfig("chest", shots=None, seed=0, method="vpt", training_seed=7, epochs=3, learning_rate=0.25, dtype="bfloat16")
    assert identity(other, "data", "backbone") == "dc01ec95eee79abc"


def test_a_new_option_at_its_default_changes_no_id(monkeypatch):
    before = identity(CONFIG, "data", "backbone")
    values = CONFIG.to_dict()
    monkeypatch.setattr(RunConfig, "to_dict", lambda self: values | {"new_option": "off"})
    monkeypatch.setitem(BORN, "new_option", "off")
    assert identity(CONFIG, "data", "backbone") == before
    monkeypatch.setattr(RunConfig, "to_dict", lambda self: values | {"new_option": "on"})
    assert identity(CONFIG, "data", "backbone") != before


def test_the_seed_of_training_that_is_the_seed_of_the_split_is_no_other_run():
    assert identity(replace(CONFIG, training_seed=1), "data", "backbone") == identity(CONFIG, "data", "backbone")
    assert replace(CONFIG, training_seed=1) == CONFIG


def test_the_transfer_lists_are_of_no_number_of_shots():
    one, other = (RunConfig("endo", shots=shots, protocol="transfer") for shots in (1, 5))
    assert one == other and identity(one, "data", "backbone") == identity(other, "data", "backbone")
