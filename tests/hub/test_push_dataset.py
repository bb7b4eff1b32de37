"""The data set on the Hub: what is sent, what is resent after an interruption, and that it loads back as it was built."""

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset
from hub_server import Fault, environment, python

from medfmc_hf.errors import MedfmcError
from medfmc_hf.hub import push_dataset as module
from medfmc_hf.hub.push_dataset import DatasetPush, eval_yaml

COMMAND = "import sys; from medfmc_hf.cli import main; sys.exit(main(sys.argv[1:]))"
LOAD = """
import hashlib, io, json, sys
from datasets import load_dataset, Image
splits = load_dataset(sys.argv[1], "retino-5shot-seed0")
print(json.dumps({
    name: [[row["image_id"], row["label"], row["patient_id"], hashlib.sha256(row["image"].tobytes()).hexdigest()] for row in rows]
    for name, rows in splits.items()
}))
"""


def rows_of(splits) -> dict:
    return {
        name: [[row["image_id"], row["label"], row["patient_id"], hashlib.sha256(row["image"].tobytes()).hexdigest()] for row in rows]
        for name, rows in splits.items()
    }


def parquet(hub) -> set[str]:
    return {path for path in hub.repos["dataset", "clinic/medfmc"].files if path.endswith(".parquet")}


def manifest_of(hub) -> dict:
    return json.loads(hub.content("dataset", "clinic/medfmc", "medfmc_build.json"))


def files_of(build) -> set[str]:
    """The Parquet files of a build, each distinct split once, without the digests that only the names in a folder need."""
    return {re.sub(r"-[0-9a-f]{12}\.parquet$", ".parquet", path.relative_to(build).as_posix()) for path in build.rglob("*.parquet")}


def push(build, **options) -> str:
    return DatasetPush(build, "clinic/medfmc", rights=True, **options)()


def test_nothing_is_sent_without_the_users_confirmation(client, build):
    with pytest.raises(MedfmcError, match=r"different licences.*--i-have-the-rights"):
        DatasetPush(build, "clinic/medfmc")()
    assert client.requests == []


def test_it_loads_back_row_for_row_without_this_package(hub, build, tmp_path):
    pushed = python(
        COMMAND, environment(hub, tmp_path / "here"), "push", "dataset", build, "--repo-id", "clinic/medfmc", "--i-have-the-rights"
    )
    assert pushed.returncode == 0, pushed.stderr
    repo = hub.repos["dataset", "clinic/medfmc"]
    assert repo.private and len(repo.commits) == 2

    loaded = python(LOAD, environment(hub, tmp_path / "elsewhere"), "clinic/medfmc", cwd=tmp_path, isolated=True)
    assert loaded.returncode == 0, loaded.stderr
    assert json.loads(loaded.stdout) == rows_of(load_dataset(str(build), "retino-5shot-seed0"))

    # The test images, which sixteen configs share, are there once.
    manifest = manifest_of(hub)
    (test,) = {file for splits in manifest["configs"].values() for file in splits["test"]["files"]}
    assert len(manifest["configs"]) == 16 and (manifest["form"], manifest["sources"]) == ("embedded", [])
    for path in ("README.md", "eval.yaml", "medfmc_build.json", test):
        assert str(build.parent).encode() not in hub.content("dataset", "clinic/medfmc", path), path


def test_the_card_and_the_tasks(client, build):
    push(build)
    card = client.content("dataset", "clinic/medfmc", "README.md").decode()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "other" and head["pretty_name"] == "MedFMC" and head["size_categories"] == ["n<1K"]
    assert head["task_ids"] == ["multi-class-image-classification"]
    assert 'load_dataset("clinic/medfmc", "retino-5shot-seed0")' in card
    assert 'evaluate.load("clinic/medfm_score", "retino")' in card
    for part in ("## Audit", "## Licence", "CC0 1.0", "CC BY-SA 4.0", "wang2023real"):
        assert part in card
    tasks = yaml.safe_load(client.content("dataset", "clinic/medfmc", "eval.yaml"))["tasks"]
    assert tasks == [
        {"id": "retino", "config": "retino", "split": "test"},
        *({"id": f"retino-{shots}shot", "config": f"retino-{shots}shot-seed0", "split": "test"} for shots in (1, 5, 10)),
    ]
    sizes = {info["config_name"]: info["download_size"] for info in head["dataset_info"]}
    files = {path: len(client.content("dataset", "clinic/medfmc", path)) for path in parquet(client)}
    assert sizes["retino"] == sum(files[file] for split in manifest_of(client)["configs"]["retino"].values() for file in split["files"])


def test_every_task_has_a_labelled_test():
    splits = {"test": {}, "train": {}}
    names = ("endo-5shot-seed0", "endo-5shot-seed1", "endo-5shot-seed0-official", "endo-transfer", "endo-challenge")
    tasks = yaml.safe_load(eval_yaml({"configs": {name: splits for name in names}}))["tasks"]
    assert [task["id"] for task in tasks] == ["endo-5shot", "endo-5shot-official", "endo-transfer"]


def test_an_embedded_build_is_sent_as_it_is(client, build, tmp_path):
    from medfmc_hf.data.build import build as make

    embedded = make([build.parent / "download"], tmp_path / "embedded", subsets=["retino"], embed=True).folder
    push(embedded)
    for path in parquet(client):
        assert client.content("dataset", "clinic/medfmc", path) == (embedded / path).read_bytes()
    with pytest.raises(MedfmcError, match="embedded already"):
        push(embedded, max_side=32)


def test_images_are_shrunk_on_the_way(client, build, tmp_path):
    push(build, max_side=16)
    manifest = manifest_of(client)
    (file,) = manifest["configs"]["retino"]["test"]["files"]
    (tmp_path / "test.parquet").write_bytes(client.content("dataset", "clinic/medfmc", file))
    rows = load_dataset("parquet", data_files=str(tmp_path / "test.parquet"), split="train")
    assert max(rows[0]["image"].size) == manifest["max_side"] == 16


def test_shrunk_images_are_told_from_the_originals(client, build, tmp_path, monkeypatch):
    """Their digests equal those of a build with --max-side, even after an interruption."""
    from medfmc_hf.data.build import build as make

    monkeypatch.setattr(module, "BATCH_FILES", 4)
    client.faults.append(Fault("PUT /lfs", 403, skip=14))
    with pytest.raises(MedfmcError, match="403"):
        push(build, max_side=16)
    client.faults.clear()
    push(build, max_side=16)
    manifest = manifest_of(client)
    for file in parquet(client):
        (tmp_path / "rows.parquet").write_bytes(client.content("dataset", "clinic/medfmc", file))
        rows = pq.read_table(tmp_path / "rows.parquet", partitioning=None).to_pylist()
        assert all(hashlib.sha256(row["image"]["bytes"]).hexdigest() == row["image_sha256"] for row in rows), file
    embedded = make([build.parent / "download"], tmp_path / "embedded", subsets=["retino"], embed=True, max_side=16).folder
    original, shrunk = (json.loads((folder / "medfmc_build.json").read_text()) for folder in (build, embedded))
    digests = [each["subsets"]["retino"]["images_sha256"] for each in (original, shrunk, manifest)]
    assert digests[0] != digests[1] == digests[2]


@pytest.mark.parametrize("shard_bytes", [2_000_000_000, 200_000])
def test_an_interrupted_push_resumes(client, build, monkeypatch, shard_bytes):
    """The second push embeds and sends only what the first did not; rows stay in order over any number of files."""
    monkeypatch.setattr(module, "BATCH_FILES", 4)
    monkeypatch.setattr("medfmc_hf.data.parquet.SHARD_BYTES", shard_bytes)
    written = []
    monkeypatch.setattr(
        module, "write_embedded", lambda rows, *rest, real=module.write_embedded: (written.append(len(rows)), real(rows, *rest))
    )
    client.faults.append(Fault("PUT /lfs", 403, skip=14))
    with pytest.raises(MedfmcError, match="403"):
        push(build)
    first, sent = len(written), client.received
    assert len(client.repos["dataset", "clinic/medfmc"].commits) == 1
    client.faults.clear()
    push(build)
    total = len(parquet(client))
    assert len(written) - first == total - 12, "three batches of four were remembered"
    assert 0 < sent < client.received == sum(len(content) for content in client.objects.values())
    assert len(client.repos["dataset", "clinic/medfmc"].commits) == 2
    files = manifest_of(client)["configs"]["retino"]["test"]["files"]
    assert (len(files) > 1) == (shard_bytes < 1_000_000) and files == sorted(files)


def test_a_push_that_was_killed_resumes(hub, build, tmp_path):
    hub.faults.append(Fault("PUT /lfs", 503, skip=10))  # the client waits and tries again, long enough to be killed
    env = environment(hub, tmp_path / "home")
    arguments = ["push", "dataset", str(build), "--repo-id", "clinic/medfmc", "--i-have-the-rights"]
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(hub.objects) < 10 and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = set(hub.objects)
    assert len(kept) >= 10 and len(hub.repos["dataset", "clinic/medfmc"].commits) == 1
    hub.faults.clear()
    hub.requests.clear()
    again = python(COMMAND, env, *arguments)
    assert again.returncode == 0, again.stderr
    assert not {request.rpartition("/")[2] for request in hub.requests if request.startswith("PUT")} & kept
    assert len(hub.repos["dataset", "clinic/medfmc"].commits) == 2


def test_uploads_that_the_hub_forgot_are_sent_again(client, build, monkeypatch):
    client.faults.append(Fault("POST /api/datasets/clinic/medfmc/commit", 403))
    with pytest.raises(MedfmcError, match="403"):
        push(build)
    client.faults.clear()
    client.objects.clear()
    with pytest.raises(MedfmcError, match="run the same command again"):
        push(build)
    push(build)
    assert parquet(client) == files_of(build)


def test_images_that_changed_are_sent_again(client, build):
    client.faults.append(Fault("POST /api/datasets/clinic/medfmc/commit", 403))
    with pytest.raises(MedfmcError, match="403"):
        push(build)
    client.faults.clear()
    image = next((build.parent / "download" / "Retino" / "images").iterdir())
    before = len(client.objects)
    os.utime(image, ns=(1, 1))
    client.requests.clear()
    push(build)
    batches = [request for request in client.requests if "objects/batch" in request]
    assert batches and len(client.objects) == before, "its files are made again, and are the same"


def test_a_hub_that_does_not_know_the_benchmark_gets_the_data_without_it(client, build, capsys):
    client.faults.append(Fault("POST /api/datasets/clinic/medfmc/commit", 400, times=1, message="eval.yaml: unknown evaluation_framework"))
    push(build)
    assert "unknown evaluation_framework" in capsys.readouterr().err
    assert "eval.yaml" not in client.repos["dataset", "clinic/medfmc"].files


def test_a_small_file_may_travel_in_the_commit(client, build, monkeypatch):
    monkeypatch.setattr("hub_server.LFS_ENDINGS", ())
    push(build)
    assert client.received == 0 and parquet(client) == files_of(build)


def test_a_broken_build_is_not_published(client, build, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(build, broken)
    next((broken / "data" / "retino").glob("test*.parquet")).write_bytes(b"PAR1")
    with pytest.raises(MedfmcError, match="medfmc check"):
        push(broken)
    with pytest.raises(MedfmcError, match="no folder"):
        DatasetPush(tmp_path / "nowhere", "clinic/medfmc")
    assert client.requests == []


def test_a_dry_run_lists_what_would_be_sent_and_sends_nothing(client, build):
    offline = DatasetPush(build, "clinic/medfmc").preview(offline=True)
    assert client.requests == []
    upload = DatasetPush(build, "clinic/medfmc").preview()
    sizes = upload.sizes()
    assert not client.repos and sizes == offline.sizes() and not upload.removed
    push(build)
    sent = client.repos["dataset", "clinic/medfmc"].files
    assert sizes.keys() == sent.keys() - {".gitattributes"}
    real = sum(len(client.content("dataset", "clinic/medfmc", path)) for path in sizes)
    assert sum(sizes.values()) == pytest.approx(real, rel=0.1)


@pytest.mark.parametrize(("files", "shard_bytes", "sizes"), [(3, 100, [3, 2]), (100, 8, [2, 2, 1]), (1, 100, [1] * 5), (5, 100, [5])])
def test_a_batch_ends_at_a_number_of_files_or_of_bytes(monkeypatch, tmp_path, files, shard_bytes, sizes):
    """No file is made before the previous batch has been sent."""
    monkeypatch.setattr(module, "BATCH_FILES", files)
    monkeypatch.setattr(module, "SHARD_BYTES", shard_bytes)
    made = []

    def waiting():
        for number in range(5):
            made.append(tmp_path / f"{number}.parquet")
            made[-1].write_bytes(b"four")
            yield module.WaitingFile(module.Part("test.parquet", "endo", "key", {}), made[-1].name, made[-1])

    sent = 0
    for batch, size in zip(module.batches(waiting()), sizes, strict=True):
        sent += size
        assert len(batch) == size and len(made) == sent
    assert list(module.batches([])) == []


def test_a_full_disk_is_told_from_other_errors(client, build, monkeypatch):
    def write(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "write_embedded", write)
    number = errno.ENOSPC
    with pytest.raises(MedfmcError, match=r"the disk of .* is full; set TMPDIR"):
        push(build)
    number = errno.EACCES
    with pytest.raises(PermissionError):
        push(build)


# --- a push adds ---


@pytest.fixture(scope="module")
def both(build, tmp_path_factory):
    """The same download built with two subsets, and with one of the two."""
    from medfmc_hf.data.build import build as make

    root = tmp_path_factory.mktemp("both")
    source = build.parent / "download"
    two = make([source], root / "two", subsets=["retino", "neojaundice"]).folder
    return two, make([source], root / "one", subsets=["neojaundice"]).folder


def configs_of(hub) -> set[str]:
    """What the plain `datasets` library would find."""
    head = yaml.safe_load(hub.content("dataset", "clinic/medfmc", "README.md").decode().split("---\n")[1])
    return {config["config_name"] for config in head["configs"]}


def test_a_push_of_one_subset_leaves_the_others(client, both, build):
    two, one = both
    push(two)
    before, card = {path: client.content("dataset", "clinic/medfmc", path) for path in parquet(client)}, configs_of(client)
    audit = re.search(r"### retino\n.*?(?=\n##)", client.content("dataset", "clinic/medfmc", "README.md").decode(), re.DOTALL)[0]
    push(one)
    assert {path: client.content("dataset", "clinic/medfmc", path) for path in parquet(client)} == before
    assert configs_of(client) == card and set(manifest_of(client)["subsets"]) == {"retino", "neojaundice"}
    assert audit in client.content("dataset", "clinic/medfmc", "README.md").decode()
    tasks = {task["id"] for task in yaml.safe_load(client.content("dataset", "clinic/medfmc", "eval.yaml"))["tasks"]}
    assert {"retino-5shot", "neojaundice-5shot"} <= tasks
    push(build)  # one subset, while the repository has both
    assert configs_of(client) == card


def test_removals_are_listed_and_need_a_flag(client, both, capsys, monkeypatch):
    two, one = both
    push(two)
    removed = DatasetPush(one, "clinic/medfmc", prune=True).preview().removed
    retino = {path for path in parquet(client) if "/retino/" in path}
    assert set(removed) == retino
    push(one, prune=True)
    assert not any("/retino/" in path for path in parquet(client)) and set(manifest_of(client)["subsets"]) == {"neojaundice"}
    assert f"{len(retino)} files of" in (said := capsys.readouterr().err) and removed[0] in said


def test_configs_that_a_build_lacks_are_not_dropped(client, both, tmp_path):
    """A build without lists has no few-shot configs of chest, colon and endo."""
    import shutil

    two, _ = both
    push(two)
    fewer = tmp_path / "fewer"
    shutil.copytree(two, fewer)
    manifest = json.loads((fewer / "medfmc_build.json").read_text())
    manifest["configs"] = {name: splits for name, splits in manifest["configs"].items() if "10shot" not in name}
    (fewer / "medfmc_build.json").write_text(json.dumps(manifest))
    with pytest.raises(MedfmcError, match=r"10 configs that this build lacks, such as \w+-10shot-seed0.*--prune"):
        DatasetPush(fewer, "clinic/medfmc", rights=True).preview()


def test_sizes_are_not_mixed(client, both):
    two, one = both
    push(two)
    with pytest.raises(MedfmcError, match=r"holds retino .*any number of pixels.*has 32"):
        push(one, max_side=32)


def test_files_of_others_are_never_removed(client, both):
    _, one = both
    theirs = {"data/train.parquet": b"theirs", "data/retino/test.parquet": b"theirs", "README.md": b"x"}
    repo = client.add_repo("dataset", "clinic/medfmc", theirs)
    with pytest.raises(MedfmcError, match="holds something else"):
        push(one)
    push(one, overwrite=True, prune=True)
    assert repo.files["data/train.parquet"] == repo.files["data/retino/test.parquet"] == b"theirs"
    client.commit(repo, "mine", {**repo.files, "data/neojaundice/notes.parquet": b"mine"})
    push(one, prune=True)
    assert repo.files["data/neojaundice/notes.parquet"] == b"mine"


TRAIN = """
import json, sys
from medfmc_hf import RunConfig, train
_, record = train(RunConfig("chest", shots=1, method="linear", model=sys.argv[1]), data="clinic/medfmc", out=sys.argv[2])
print(json.dumps([record.id, record.data, record.scores["test"]["score"]]))
"""


def test_what_the_build_knows_of_its_images_is_known_to_runs_from_the_hub(client, backbone, tmp_path):
    """Twelve bits, shrunk: the run is that of the same build on disk, and its record says where the data came from."""
    from PIL import Image

    from medfmc_hf import RunConfig, train
    from medfmc_hf.data.build import build as build_folder
    from medfmc_hf.data.sample import make_sample

    make_sample(tmp_path / "download")
    for path in (tmp_path / "download" / "ChestDR").rglob("*.png"):
        values = np.asarray(Image.open(path).convert("L")).astype(int) * 4095 // 255
        Image.fromarray(values.astype(np.uint16)).save(path)
    linked = build_folder([tmp_path / "download"], tmp_path / "linked", subsets=["chest"]).folder
    local = build_folder([tmp_path / "download"], tmp_path / "local", subsets=["chest"], embed=True, max_side=48).folder
    push(linked, max_side=48)
    _, expected = train(RunConfig("chest", shots=1, method="linear", model=str(backbone)), data=local, out=tmp_path / "runs")
    trained = python(TRAIN, environment(client, tmp_path / "elsewhere"), backbone, tmp_path / "runs2", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    run_id, data, score = json.loads(trained.stdout.splitlines()[-1])
    assert run_id == expected.id and score == expected.scores["test"]["score"]
    assert data["repo_id"] == "clinic/medfmc" and data["revision"] == client.repos["dataset", "clinic/medfmc"].commits[-1][0]
    same = ("grey_range", "max_side", "notes", "invented", "images_sha256", "test_sha256")
    assert {name: data[name] for name in same} == {name: expected.data[name] for name in same}
