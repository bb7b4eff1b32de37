import re
from pathlib import Path

import pytest
import torch

from medfmc_hf.adaptation import adapt, support
from medfmc_hf.errors import MedfmcError

README = Path(__file__).resolve().parents[2] / "README.md"


def cells_of(text):
    """{(method, architecture): outcome} of a table, with the reasons in place of their numbers."""
    reasons = {f"({n})": reason for n, reason in re.findall(r"^(\d+)\. (.+)$", text, re.MULTILINE)}
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {(row[0].strip("`"), name): reasons.get(cell, cell) for row in rows[2:] for name, cell in zip(rows[0][1:], row[1:])}


def test_a_table_says_what_works_and_why_not():
    cells = support.try_pairs(["vpt", "lora"], ["ResNet"])
    assert cells["lora"]["ResNet"] == support.WORKS
    text = support.table(cells)
    assert "| `vpt` | (1) |" in text
    assert "no sequence of tokens" in text


def unused(model, method, options, **others):
    adapted = ADAPT(model, method, options, **others)
    adapted.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
    return adapted


def put_back_wrong(model):
    backbone = UNLOAD(model)
    next(backbone.parameters()).data.add_(1)
    return backbone


def load_another(folder):
    model = LOAD(folder)
    model.get_base_model().classifier.modules_to_save["default"].bias.data.add_(1)
    return model


ADAPT, UNLOAD, LOAD = adapt.adapt, adapt.unload, adapt.load


@pytest.mark.parametrize(
    ("function", "faulty", "said"),
    [
        ("unload", put_back_wrong, "not what it was"),
        ("load", load_another, "logits differ by 1 after saving"),
        ("adapt", unused, "no gradient reaches"),
    ],
)
def test_what_goes_wrong_is_found(monkeypatch, function, faulty, said):
    monkeypatch.setattr(adapt, function, faulty)
    assert said in support.try_pairs(["lora"], ["ViT"])["lora"]["ViT"]


def test_the_readme_holds_what_the_generator_finds():
    content = README.read_text(encoding="utf-8")
    shown = cells_of(content[content.index(support.BEGIN) : content.index(support.END, content.index(support.BEGIN))])
    assert {key for key in shown} == {(method, name) for method in adapt.METHODS for name in support.ARCHITECTURES}
    some = [*list(adapt.METHODS)[: list(adapt.METHODS).index("peft")], "ia3", "vera", "oft"]
    for architecture in ("SigLIP", "ResNet"):  # the whole takes minutes: `python -m medfmc_hf.adaptation.support`
        assert cells_of(support.table(support.try_pairs(some, [architecture]))).items() <= shown.items()


def test_putting_it_between_the_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{support.BEGIN}\nold\n{support.END}\nafter\n")
    support.put(readme, "new")
    assert readme.read_text() == f"before\n{support.BEGIN}\nnew\n{support.END}\nafter\n"
    readme.write_text("nothing")
    with pytest.raises(MedfmcError, match="no place for the table"):
        support.put(readme, "new")
