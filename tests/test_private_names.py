"""Which private names of other libraries this package uses: those of one module, and they are there in the installed versions."""

import ast
from importlib.metadata import version
from pathlib import Path

import pytest
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils.peft_types import PeftType

import medfmc_hf
from medfmc_hf import private_names

ROOT = Path(__file__).parents[1]
PACKAGE = Path(medfmc_hf.__file__).parent
# What PEFT calls in a tuner, and what a tuner calls in its base classes: there is no other way to write one.
OTHERS = ("recipes", "metrics", "benchmarks")
OF_A_TUNER = {
    BaseTuner: (
        "_check_merge_allowed", "_check_target_module_exists", "_create_and_replace", "_pre_injection_hook", "_prepare_adapter_config",
        "_replace_module",
    ),
    PeftModel: ("_enable_peft_forward_hooks",),
    BaseTunerLayer: ("_all_available_adapter_names", "_move_adapter_to_device_of_base_layer"),
}  # fmt: skip


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def own_names(trees) -> set[str]:
    """Private names that this package itself gives: functions, classes, attributes of self, fields and variables."""
    found = set()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and getattr(node.value, "id", "") == "self":
                found.add(node.attr)
            elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
                found.add(node.slice.value)  # self.__dict__["_name"]
    return found


def test_no_other_module_uses_a_private_name_of_another_library():
    files = [path for folder in (PACKAGE, *map(ROOT.joinpath, OTHERS)) for path in sorted(folder.rglob("*.py"))]
    assert len(files) > 100
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    own = own_names(trees.values()) | {name for names in OF_A_TUNER.values() for name in names}
    used = set()
    for path, tree in trees.items():
        if path.name == "private_names.py":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in own:
                used.add(f"{path.name}:{node.lineno} {ast.unparse(node)}")
            if isinstance(node, ast.ImportFrom) and not node.level:
                parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                used |= {f"{path.name}:{node.lineno} from {node.module}" for part in parts if private(part)}
            if isinstance(node, ast.Import):
                names = [part for alias in node.names for part in alias.name.split(".")]
                used |= {f"{path.name}:{node.lineno} import" for part in names if private(part)}
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
                name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
                if private(str(name)) and name not in own:
                    used.add(f"{path.name}:{node.lineno} {name}")
    assert not used


@pytest.mark.parametrize(("cls", "name"), [(cls, name) for cls, names in OF_A_TUNER.items() for name in names])
def test_peft_still_calls_the_hooks_of_a_tuner(cls, name):
    assert callable(getattr(cls, name, None)), f"peft {version('peft')} has no {cls.__name__}.{name}"


def test_the_hubs_operations_are_as_we_make_them(tmp_path):
    from huggingface_hub import CommitOperationAdd

    (tmp_path / "a").write_bytes(b"content")
    real, made = CommitOperationAdd("a", str(tmp_path / "a")), private_names.uploaded_operation("a", "00" * 32, 7)
    said = f"huggingface_hub {version('huggingface_hub')} made CommitOperationAdd anew"
    assert all(hasattr(real, name) for name in vars(made)), said
    assert private_names.is_uploaded(made) and not private_names.is_uploaded(real), said
    assert (made.upload_info.size, made.upload_info.sha256) == (7, bytes(32)), said


def test_an_enum_grows():
    private_names.add_member(PeftType, "MEDFMC_TEST")
    said = f"Python's enum, or peft {version('peft')}, keeps members in another way"
    assert PeftType("MEDFMC_TEST") is PeftType["MEDFMC_TEST"] and "MEDFMC_TEST" in PeftType.__members__, said
    assert PeftType("MEDFMC_TEST") == "MEDFMC_TEST" and PeftType("MEDFMC_TEST") in list(PeftType), said
