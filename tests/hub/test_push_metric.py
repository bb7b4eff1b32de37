"""The metric is pushed to the Hub and loaded on a machine without this package."""

import pytest
from hub_server import environment, python

from medfmc_hf.errors import MedfmcError
from medfmc_hf.hub.push_metric import MetricPush
from medfmc_hf.metric import sources
from medfmc_hf.scoring import score

PUSH = "import sys; from medfmc_hf.cli import main; sys.exit(main(sys.argv[1:]))"
LOAD = """
import json, evaluate
result = evaluate.load("clinic/medfm_score", "colon").compute(predictions=[[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], references=[0, 1, 1])
print(json.dumps({key: result[key] for key in ("accuracy", "auc", "score")}))
"""


def test_the_metric_is_pushed_and_loads_without_this_package(hub, tmp_path):
    pushed = python(PUSH, environment(hub, tmp_path / "here"), "push", "metric", "--repo-id", "clinic/medfm_score", "--quiet")
    assert (pushed.returncode, pushed.stderr) == (0, "")
    space = hub.repos["space", "clinic/medfm_score"]
    assert pushed.stdout.strip().endswith(f"/spaces/clinic/medfm_score/tree/{space.sha}") and space.private

    # The Space holds the package's own files.
    for name, content in sources().items():
        assert hub.content("space", "clinic/medfm_score", name) == content

    loaded = python(LOAD, environment(hub, tmp_path / "elsewhere"), cwd=tmp_path, isolated=True)
    assert loaded.returncode == 0, loaded.stderr
    expected = score([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert loaded.stdout.strip() == str({key: expected[key] for key in ("accuracy", "auc", "score")}).replace("'", '"')


def test_a_dry_run_lists_the_files_of_the_space_and_sends_nothing(client):
    upload = MetricPush("clinic/medfm_score").preview()
    assert upload.sizes() == {name: len(content) for name, content in sorted(sources().items())} and not upload.removed
    assert not any(request.startswith(("POST", "PUT")) for request in client.requests)
    client.add_repo("space", "clinic/medfm_score", {"app.py": b"theirs"})
    with pytest.raises(MedfmcError, match="holds something else"):
        MetricPush("clinic/medfm_score").preview()
    assert MetricPush("clinic/medfm_score").preview(offline=True).files == upload.files


@pytest.mark.parametrize("repo_id", ["thing", "a/b/c", "a/..", "", "a b/c", "clinic/other"])
def test_a_name_under_which_evaluate_would_not_find_it_is_refused(repo_id):
    with pytest.raises(MedfmcError, match="not a repository id" if repo_id != "clinic/other" else "--repo-id ORG/medfm_score"):
        MetricPush(repo_id)
