"""Boards of invented runs, and a headless Chromium for the tests of the page; those are skipped where there is none."""

import shutil

import pytest
from invented_runs import NASTY, invent_run, invent_runs

from medfmc_hf.reporting.board import make_board

SWITCHES = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
            "disable-component-update", "disable-sync", "disable-dev-shm-usage")  # fmt: skip


@pytest.fixture(scope="module")
def few_runs(tmp_path_factory):
    """A folder of twenty runs: two methods on endo, 1 and 5 shots, five seeds."""
    root = tmp_path_factory.mktemp("runs")
    invent_runs(root, methods=("linear", "lora"), subsets=("endo",), shots=(1, 5), rows=60, patients=25)
    return root


@pytest.fixture(scope="module")
def few_board(few_runs):
    return make_board(few_runs)


@pytest.fixture(scope="module")
def nasty_board(tmp_path_factory):
    """A board with a method and an error whose characters mean something to Markdown, HTML and LaTeX."""
    root = tmp_path_factory.mktemp("runs")
    invent_runs(root, methods=("linear", "lora"), subsets=("chest", "colon"), shots=(1, 5), seeds=(0, 1), rows=40, patients=12)
    invent_run(root, subset="colon", shots=5, method=NASTY, rows=40, patients=12)
    invent_run(root, subset="colon", shots=1, method="lora", seed=4, status="failed", error="a | b\nc <script>")
    return make_board(root)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A selenium driver, one for all tests."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium with chromedriver here (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for switch in (*SWITCHES, f"user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def show(browser):
    """Open an address at a width, in light or dark colours, and hand the browser back."""

    def open_page(address: str, width: int = 1280, scheme: str = "light"):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        )
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"media": "", "features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        browser.get_log("browser")
        browser.get(address)
        return browser

    return open_page
