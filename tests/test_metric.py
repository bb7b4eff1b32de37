"""`evaluate.load("medfm_score")` in fresh processes, as a user calls it, and the metric's habits inside evaluate."""

import importlib
import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE

from medfmc_hf import metric
from medfmc_hf.errors import MedfmcError
from medfmc_hf.scoring import score
from medfmc_hf.subsets import SUBSETS

REPOSITORY = Path(__file__).resolve().parents[1]


def python(code: str, home: Path, *, cwd: Path | None = None, **environment: str) -> str:
    """What `code` prints in a fresh process with its own Hugging Face home and no way to the network."""
    unreachable = {"HF_ENDPOINT": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "OMP_NUM_THREADS") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd or home, capture_output=True, text=True, timeout=PATIENCE,
        env=keep | unreachable | {"HF_HOME": str(home), "PYTHONPATH": str(REPOSITORY)} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_bare_name_works_in_a_fresh_process_without_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "evaluate", raising=False)
    metric.install()
    code = """
import evaluate, json, sys
endo = evaluate.load("medfm_score", "endo")
print(json.dumps([endo.compute(predictions=[[.9, .1, .2, .3], [.2, .8, .1, .1]], references=[[0], [1, 2]]), "medfmc_hf" in sys.modules]))
"""
    result, ours_loaded = json.loads(python(code, tmp_path))
    expected = score([[0], [1, 2]], [[0.9, 0.1, 0.2, 0.3], [0.2, 0.8, 0.1, 0.1]], classes=SUBSETS["endo"].classes)
    assert json.dumps(result) == json.dumps(expected)
    assert not ours_loaded  # the metric runs by itself, as on the Hub


def test_install_is_quick_idempotent_and_imports_no_evaluate(tmp_path):
    code = (
        "import sys; from medfmc_hf import metric; a = metric.install(); assert metric.install() == a; print(a, 'evaluate' in sys.modules)"
    )
    script, imported = python(code, tmp_path).split()
    assert Path(script).is_file() and tmp_path in Path(script).parents and imported == "False"
    assert {path.name for path in Path(script).parent.iterdir()} == {"__init__.py", "medfm_score.py", *metric.MODULES}
    assert [path.name for path in Path(script).parents[1].iterdir() if path.is_dir()] == [Path(script).parent.name]


def test_install_from_several_processes_at_once(tmp_path):
    code = "from medfmc_hf import metric; print(metric.install())"
    with ThreadPoolExecutor(6) as pool:
        scripts = set(pool.map(lambda _: python(code, tmp_path), range(6)))
    assert len(scripts) == 1
    leftovers = [path for path in Path(scripts.pop().strip()).parents[1].iterdir() if path.name.startswith(".new")]
    assert leftovers == []


def test_install_makes_this_version_the_newest_again(tmp_path, monkeypatch):
    monkeypatch.setattr(metric, "modules_cache", lambda: tmp_path)
    script = metric.install()
    other = script.parents[1] / ("0" * 64)
    other.mkdir()
    (other / script.name).write_text("raise SystemExit('another version')")
    os.utime(script, (1, 1))
    assert metric.install() == script
    assert script.stat().st_mtime >= (other / script.name).stat().st_mtime


def test_a_changed_formula_is_another_version(tmp_path, monkeypatch):
    monkeypatch.setattr(metric, "modules_cache", lambda: tmp_path / "cache")
    first = metric.install()
    sources = metric.sources()
    monkeypatch.setattr(metric, "sources", lambda: sources | {"scoring.py": sources["scoring.py"] + b"\n# changed\n"})
    assert metric.install() != first


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_MODULES_CACHE", "XDG_CACHE_HOME", None])
def test_the_cache_is_where_evaluate_looks(tmp_path, monkeypatch, variable):
    import evaluate.config

    with monkeypatch.context() as changed:
        for name in ("HF_HOME", "HF_MODULES_CACHE", "XDG_CACHE_HOME"):
            changed.delenv(name, raising=False)
        if variable:
            changed.setenv(variable, str(tmp_path / "elsewhere"))
        theirs = importlib.reload(evaluate.config).HF_MODULES_CACHE
        changed.delitem(sys.modules, "evaluate")
        ours = metric.modules_cache()
    importlib.reload(evaluate.config)
    assert ours == theirs
    assert metric.modules_cache() == evaluate.config.HF_MODULES_CACHE


def test_the_space_stands_alone(tmp_path):
    space = metric.write_space(tmp_path / "medfm_score")
    names = {path.name for path in space.iterdir()}
    assert names == {"README.md", "app.py", "medfm_score.py", "requirements.txt", *metric.MODULES}
    assert not any(path.is_symlink() for path in space.iterdir())
    assert (space / "scoring.py").read_bytes() == (Path(metric.__file__).parent / "scoring.py").read_bytes()
    with pytest.raises(MedfmcError, match="not empty"):
        metric.write_space(space)


def test_the_repository_holds_no_symbolic_link():
    """A clone on Windows would turn them into text."""
    listed = subprocess.run(["git", "ls-files", "-s"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a clone")
    assert [line for line in listed.stdout.splitlines() if line.startswith("120000")] == []


def test_the_space_runs_where_the_package_is_not_installed(tmp_path):
    """In a process that cannot import it, from the Space by path and from the installed script."""
    space, script = metric.write_space(tmp_path / "medfm_score"), metric.install()
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'medfmc_hf': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import evaluate\n"
        "for path in sys.argv[1:]:\n"
        "    metric = evaluate.load(path, 'colon')\n"
        "    print(metric.compute(predictions=[[0.9, 0.1], [0.2, 0.8]], references=[0, 1])['score'])\n"
        "assert 'medfmc_hf' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(space), str(script)], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == ["1.0", "1.0"], done.stderr


def test_a_clone_a_space_and_the_installed_script_load_by_path(tmp_path, monkeypatch):
    import evaluate

    monkeypatch.chdir(REPOSITORY)
    for path in ("metrics/medfm_score", str(metric.write_space(tmp_path / "medfm_score")), str(metric.install())):
        assert evaluate.load(path, "colon").compute(predictions=[[0.9, 0.1], [0.2, 0.8]], references=[0, 1])["score"] == 1


@pytest.fixture(scope="module")
def load():
    import evaluate

    script = str(metric.install())
    return lambda *words, **options: evaluate.load(script, *words, **options)


RNG = np.random.default_rng(0)
SCORES, MULTI, SINGLE = RNG.normal(size=(40, 4)).round(1), RNG.random((40, 4)) < 0.4, RNG.integers(0, 4, 40)


def same(a, b):
    return json.dumps(a) == json.dumps(b)


@pytest.mark.parametrize("targets", [MULTI, SINGLE, [np.flatnonzero(row).tolist() for row in MULTI]], ids=["multi-hot", "single", "lists"])
def test_rows_one_by_one_in_batches_and_at_once(load, targets):
    expected, module = score(targets, SCORES), load()
    assert same(module.compute(predictions=SCORES, references=targets), expected)
    assert same(module.compute(predictions=SCORES.tolist(), references=list(targets)), expected)
    for row, target in zip(SCORES, targets):
        module.add(prediction=row, reference=target)
    assert same(module.compute(), expected)
    for first in range(0, 40, 16):
        module.add_batch(predictions=SCORES[first : first + 16], references=targets[first : first + 16])
    assert same(module.compute(), expected)
    module.add_batch(predictions=SCORES[:30], references=targets[:30])
    assert same(module.compute(predictions=SCORES[30:], references=targets[30:]), expected)


def test_a_subset_fixes_the_task_the_classes_and_the_width(load):
    endo = load("endo")
    result = endo.compute(predictions=SCORES, references=MULTI, ties="official", undefined="official")
    assert same(result, score(MULTI, SCORES, classes=SUBSETS["endo"].classes, ties="official", undefined="official"))
    with pytest.raises(ValueError, match=r"3 classes; expected 4 \(ulcer, erosion, polyp, tumor\)"):
        endo.compute(predictions=SCORES[:, :3], references=MULTI[:, :3])
    with pytest.raises(ValueError, match="multi-label task"):
        endo.compute(predictions=SCORES, references=SINGLE)
    with pytest.raises(ValueError, match="single-label task"):
        load("retino").compute(predictions=np.zeros((40, 5)), references=np.eye(5, dtype=int)[SINGLE])
    with pytest.raises(ValueError, match="no configuration 'liver'"):
        load("liver")


def test_tensors_and_dataset_columns(load):
    datasets = pytest.importorskip("datasets")
    torch = pytest.importorskip("torch")
    table = datasets.Dataset.from_dict({"label": SINGLE.tolist(), "labels": [np.flatnonzero(row).tolist() for row in MULTI]})
    assert same(load().compute(predictions=torch.tensor(SCORES), references=table["label"]), score(SINGLE, SCORES))
    assert same(load().compute(predictions=torch.tensor(SCORES), references=table["labels"]), score(MULTI, SCORES))


def test_combine_with_other_metrics(load):
    import evaluate

    both = evaluate.combine([load("endo"), load()])
    result = both.compute(predictions=SCORES, references=MULTI)
    assert result["medfm_score_0_map"] == result["medfm_score_1_map"] == score(MULTI, SCORES)["map"]
    both.add_batch(predictions=SCORES, references=MULTI)
    assert both.compute()["medfm_score_0_auc"] == score(MULTI, SCORES)["auc"]


def rows_of(rank):
    rng = np.random.default_rng(rank)
    return rng.normal(size=(20, 3)), rng.integers(0, 3, 20)


def score_in_process(load, folder, rank, results):
    module = load(num_process=2, process_id=rank, experiment_id="test", cache_dir=folder)
    scores, targets = rows_of(rank)
    module.add_batch(predictions=scores, references=targets)
    results.put((rank, module.compute()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, so that evaluate is imported once")
def test_several_processes(load, tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=score_in_process, args=(load, str(tmp_path), rank, results)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    found = dict(results.get(timeout=PATIENCE) for _ in workers)
    for worker in workers:
        worker.join()
    (scores, targets), (more_scores, more_targets) = rows_of(0), rows_of(1)
    assert found[1] is None  # process 0 gathers the rows of all and has the result
    assert same(found[0], score(np.concatenate([targets, more_targets]), np.concatenate([scores, more_scores])))


def test_class_indices_have_an_accuracy_alone(load):
    predictions = SCORES.argmax(axis=1)
    expected = {"accuracy": score(SINGLE, SCORES)["accuracy"]}
    assert load().compute(predictions=predictions, references=SINGLE) == expected
    assert load().compute(predictions=predictions.tolist(), references=SINGLE.tolist()) == expected
    module = load()
    module.add_batch(predictions=predictions, references=SINGLE)
    assert module.compute() == expected
    with pytest.raises(ValueError, match="class indices 0 to 3; expected 0 to 1"):
        load("colon").compute(predictions=predictions, references=SINGLE % 2)
    with pytest.raises(ValueError, match="single-label task"):
        load("endo").compute(predictions=predictions, references=MULTI)


def test_nothing_is_rounded_on_the_way_through_arrow(load):
    for predictions, references, message in (
        ([0.3, 0.9], [0, 1], "stack 1 - p and p"),
        ([[0.3, 0.7], [0.1, 0.9]], [0, 0.7], "expected class indices"),
        ([[0.3, 0.7], [0.1, 0.9]], [[0.7], [1]], "expected class indices or 0 and 1"),
        ([[0.3, 0.7], [0.1, 0.9]], [[0.7], []], "list of positive class indices"),
        ([1, 0], [0, float("nan")], "expected class indices"),
    ):
        module = load()
        with pytest.raises(ValueError, match=message):
            module.compute(predictions=predictions, references=references)
        module.add_batch(predictions=predictions, references=references)
        with pytest.raises(ValueError, match=message):
            module.compute()


def test_the_evaluator_of_image_classification(load):
    from evaluate import evaluator

    task = evaluator("image-classification")
    outputs = [[{"label": f"c{c}", "score": float(value)} for c, value in enumerate(row)] for row in SCORES]
    inputs = {"references": SINGLE.tolist(), **task.predictions_processor(outputs, {f"c{c}": c for c in range(4)})}
    expected = score(SINGLE, SCORES)["accuracy"]
    assert task.compute_metric(load(), inputs, strategy="simple") == {"accuracy": expected}
    sampled = task.compute_metric(load(), inputs, strategy="bootstrap", n_resamples=50, random_state=0)
    assert sampled["accuracy"]["confidence_interval"][0] <= expected <= sampled["accuracy"]["confidence_interval"][1]


def test_bad_rows_are_named(load):
    module = load()
    with pytest.raises(ValueError, match="39 references for 40 predictions"):
        module.compute(predictions=SCORES, references=SINGLE[:39])
    with pytest.raises(ValueError, match="not finite"):
        module.compute(predictions=np.where(SCORES > 1, np.nan, SCORES), references=SINGLE)
    assert same(module.compute(predictions=SCORES, references=SINGLE), score(SINGLE, SCORES))  # and the module lives on


def test_the_card_shows_what_is_true(load):
    card = (REPOSITORY / "metrics" / "medfm_score" / "README.md").read_text()
    blocks = [block.split("```")[0] for block in card.split("```python\n")[1:]]
    assert len(blocks) >= 3
    for block in blocks:
        code = block.replace('evaluate.load("medfm_score"', f"evaluate.load({str(metric.install())!r}")
        exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize(("variables", "by_path"), [({"HF_EVALUATE_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}, False), ({}, True)])
def test_the_two_ways_that_ask_nobody(tmp_path, variables, by_path):
    """As the README says, for a machine behind a proxy that never answers."""
    code = """
import socket, sys
asked = []
def note(*arguments, **options):
    asked.append(arguments)
    raise OSError("no network here")
socket.getaddrinfo = note
from medfmc_hf.metric import install
path = str(install())
import evaluate
metric = evaluate.load(path if sys.argv[1] == "True" else "medfm_score", "colon")
assert metric.compute(predictions=[[0.9, 0.1], [0.2, 0.8]], references=[0, 1])["auc"] == 1.0
assert not asked, asked
"""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = kept | {"HF_HOME": str(tmp_path), "HF_TOKEN": "hf_secret"} | variables
    done = subprocess.run(
        [sys.executable, "-c", code, str(by_path)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
