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
from medfmc_hf.reporting.board import make_board
from medfmc_hf.reporting.board_tables import mean_and_spread
from medfmc_hf.reporting.space import write_space


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
            estimate = board.cell(adaptation.key, subset, shots).metrics["map" if subset == "chest" else "accuracy"]
            low, high = estimate.seed_interval
            assert text.splitlines() == [mean_and_spread(estimate), "3 seeds", f"seeds {100 * low:.2f} to {100 * high:.2f}"]


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
