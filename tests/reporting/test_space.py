import dataclasses
import json
import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from invented_runs import invent_run, invent_runs
from patience import PATIENCE

pytest.importorskip("matplotlib")

from medfmc_hf.errors import MedfmcError
from medfmc_hf.reporting import write_report
from medfmc_hf.reporting.board import Board, make_board
from medfmc_hf.reporting.board_tables import mean_and_spread
from medfmc_hf.reporting.space import write_space
from medfmc_hf.runs import RunRecord


class Hub(SimpleHTTPRequestHandler):
    """The two endpoints a Space reads, over a folder, with the listing in pages; and the Space itself."""

    def __init__(self, *args, root, **options):
        self.root = root
        super().__init__(*args, directory=root, **options)

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = urlsplit(self.path)
        if path.path == "/api/datasets/lab/runs/tree/main":
            return self.listing(int(parse_qs(path.query).get("cursor", ["0"])[0]))
        self.path = re.sub(r"^/datasets/lab/runs/resolve/main/", "/records/", path.path)
        return super().do_GET()

    def listing(self, start, size=4):
        files = sorted(path.relative_to(self.root / "records").as_posix() for path in (self.root / "records").rglob("*") if path.is_file())
        body = json.dumps([{"type": "file", "path": path} for path in files[start : start + size]]).encode()
        self.send_response(200)
        if start + size < len(files):
            address = f"http://127.0.0.1:{self.server.server_port}{urlsplit(self.path).path}?cursor={start + size}"
            self.send_header("Link", f'<{address}>; rel="next"')
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub(tmp_path):
    """Folder of the records, and the address of the Space that reads them."""
    (tmp_path / "records").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, root=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    write_space(tmp_path / "space", "lab/runs", endpoint=address)
    yield tmp_path / "records", f"{address}/space/index.html"
    server.shutdown()
    server.server_close()


def rows_of(driver):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, PATIENCE).until(lambda d: "Reading" not in d.find_element("id", "summary").text)
    rows = driver.find_elements("css selector", "#board-table tbody tr:not(.reference)")
    return {row.find_element("tag name", "th").text: [cell.text for cell in row.find_elements("tag name", "td")] for row in rows}


def test_records_alone_give_the_numbers_of_the_board(hub, show):
    """The script and Python work out the same means and spreads."""
    records, address = hub
    invent_runs(
        records,
        methods=("linear", "lora"),
        subsets=("chest", "colon"),
        shots=(1, 5),
        seeds=(0, 1, 2),
        rows=30,
        patients=9,
        predictions=False,
    )
    board = make_board(records)
    shown = rows_of(show(address))
    assert len(shown) == 2
    for adaptation in board.adaptations:
        cells = next(cells for label, cells in shown.items() if adaptation.label in label)
        for (subset, shots), text in zip([(s, k) for s in ("chest", "colon") for k in ("1", "5")], cells):
            estimate = board.result(adaptation.key, subset, shots).metrics["map" if subset == "chest" else "accuracy"]
            low, high = estimate.seed_interval
            assert text.splitlines() == [mean_and_spread(estimate), "3 split seeds", f"seeds {100 * low:.2f} to {100 * high:.2f}"]


def of_the_script(board, driver, records):
    """What the page makes of a board and of records that it does not hold."""
    words = "addRecords(arguments[0], arguments[1]); return arguments[0]"
    return driver.execute_script(words, board, [dataclasses.asdict(RunRecord.load(path)) for path in sorted(records.rglob("run.json"))])


def test_records_alone_make_the_experiments_of_the_board(hub, show):
    """The script pools the same runs as Python, and finds the same means and spreads, for records with whatever sets experiments apart."""
    records, address = hub
    options = {"subset": "endo", "rows": 40, "patients": 15, "predictions": False}
    for seed, training_seed in ((0, None), (0, 100), (0, 200), (1, None), (2, None), (2, 102)):
        invent_run(records, shots=5, seed=seed, training_seed=training_seed, **options)
    for seed in range(3):
        invent_run(records, shots=None, seed=seed, **options)
        invent_run(records, protocol="transfer", seed=seed, **options)
        invent_run(records, shots=5, seed=seed, epochs=3, **options)
        invent_run(records, **(options | {"shots": 5, "seed": seed, "rows": 50, "method": "linear"}))
    for seed in range(4):  # the same experiment, were it not for the images and the test rows that the records name
        folder = invent_run(records, shots=1, seed=seed, **options)
        record = RunRecord.load(folder)
        record.data |= {"images_sha256": "ab"[seed % 2], "test_sha256": "c"}
        record.save(folder)
        invent_run(records, shots=10, seed=seed, **options)
    again = shutil.copytree(folder, folder.with_name("again"))
    record.id, record.finished_at, record.scores["test"]["auc"] = 16 * "f", "2027-01-01T00:00:00+00:00", 0.875
    record.save(again)
    expected = json.loads(json.dumps(make_board(records, intervals=False).to_json()))
    driver = show(address)
    rows_of(driver)
    assert f"{expected['counts']['finished']} finished runs" in driver.find_element("id", "summary").text
    found = of_the_script(Board().to_json(), driver, records)

    def rows(board):
        own = {adaptation["key"]: [] for adaptation in board["adaptations"]}
        for result in board["results"]:
            own[result["adaptation"]] += result["runs"]
        return set(map(frozenset, own.values()))

    assert rows(found) == rows(expected) and len({a["label"] for a in found["adaptations"]}) == len(rows(found))
    assert len(found["results"]) == len(expected["results"]) > 6
    for result in expected["results"]:
        own = next(each for each in found["results"] if each["runs"] == result["runs"])
        for name in ("subset", "shots", "seeds", "training_seeds", "test_rows", "test_patients"):
            assert own[name] == result[name]
        for metric, estimate in result["metrics"].items():
            for name, value in estimate.items():
                assert own["metrics"][metric][name] == (value if value is None else pytest.approx(value, rel=1e-6)), (result["shots"], name)
        for name, row in result["per_class"].items():
            shown = {column: own["per_class"][name].get(column) for column in row}
            assert shown == {column: value if value is None else pytest.approx(value) for column, value in row.items()}
    assert any(estimate["split_sd"] is not None for result in found["results"] for estimate in result["metrics"].values())


def test_more_seeds_of_a_row_bear_its_name(hub, show):
    records, address = hub
    invent_runs(records, methods=("lora",), subsets=("endo",), shots=(5,), seeds=(0, 1), rows=30, patients=9, epochs=3)
    board = json.loads(json.dumps(make_board(records).to_json()))
    for path in records.rglob("run.json"):
        path.unlink()
    invent_run(records, subset="endo", shots=5, seed=2, rows=30, patients=9, epochs=3)
    unsaid = invent_run(records, subset="endo", shots=5, seed=3, rows=30, patients=9)
    record = RunRecord.load(unsaid)
    record.adaptation = ""
    record.save(unsaid)
    driver = show(address)
    rows_of(driver)
    found = of_the_script(board, driver, records)
    old, new = found["adaptations"]
    assert new["label"] == f"{old['label']}, runs not in the board" and new["live"]
    assert any("1 new records do not say" in note for note in found["notes"])


def test_the_board_is_shown_and_newer_records_beside_it(hub, show, tmp_path):
    records, address = hub
    invent_runs(records, methods=("linear", "lora"), subsets=("endo",), shots=(5,), seeds=(0, 1), rows=30, patients=9)
    _, paths = write_report(records, tmp_path / "report")
    shutil.copy(next(path for path in paths if path.name == "board.json"), records)
    invent_run(records, subset="endo", shots=5, method="bottleneck", rows=30, patients=9)
    invent_run(records, subset="endo", shots=1, method="lora", status="failed", error="<i>late</i> failure")
    (records / "notes").mkdir()
    (records / "notes" / "run.json").write_text("[1, 2]")  # not ours: anybody may add a file
    driver = show(address)
    shown = rows_of(driver)
    old, new = ({label: cells for label, cells in shown.items() if label.startswith("new") == flag} for flag in (False, True))
    assert len(old) == 2 and all("test " in cells[0] for cells in old.values())
    assert len(new) == 1 and "bottleneck" in next(iter(new)) and all("test " not in cells[0] for cells in new.values())
    assert "<i>late</i> failure" in driver.find_element("id", "failed").text
    assert driver.find_elements("css selector", "#curves img") and "5 finished runs, 1 failed" in driver.find_element("id", "summary").text


def test_a_data_set_that_is_not_there_is_told(hub, show):
    _, address = hub
    driver = show(f"{address}?records=lab/nothing")
    rows_of(driver)
    assert "lab/nothing could not be read" in driver.find_element("id", "summary").text


def test_the_readme_makes_it_a_static_space(tmp_path):
    _, readme = write_space(tmp_path, "my-lab/medfmc-runs")
    head = yaml.safe_load(readme.read_text().split("---")[1])
    assert head["sdk"] == "static" and head["datasets"] == ["my-lab/medfmc-runs"] and len(head["short_description"]) <= 60
    write_space(tmp_path, "my-lab/other-runs")
    assert "my-lab/other-runs" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize("records", ["no-slash", "a/b/c", "a/<script>", ""])
def test_what_is_no_repository_is_refused(tmp_path, records):
    with pytest.raises(MedfmcError, match="--records"):
        write_space(tmp_path / "space", records)
    assert not (tmp_path / "space").exists()


def test_another_readme_is_not_overwritten(tmp_path):
    (tmp_path / "README.md").write_text("# My thesis")
    with pytest.raises(MedfmcError, match="not of such a Space"):
        write_space(tmp_path, "lab/runs")
    assert (tmp_path / "README.md").read_text() == "# My thesis" and not (tmp_path / "index.html").exists()
