import json
import re
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest
from invented_runs import invent_run, invent_runs

pytest.importorskip("matplotlib")

from medfmc_hf.reporting import write_report
from medfmc_hf.reporting.board_tables import mean_and_spread
from medfmc_hf.reporting.page import fill, inline_json
from medfmc_hf.words import comparisons, count, p_value, percent, seconds, seeds_words, shots_words

NASTY = "<img src=x onerror=alert(1)></script>{{style}}"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report of everything at once: two protocols, gaps, failures, missing predictions, and names that hold HTML."""
    root, out = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("report")
    invent_runs(
        root, methods=("linear", "lora", "vpt-deep"), subsets=("chest", "colon"), shots=(1, 5), seeds=(0, 1, 2), rows=40, patients=12
    )
    invent_runs(root, methods=("lora",), subsets=("chest",), shots=(5,), rows=30, protocol="official")
    invent_run(root, subset="colon", shots=5, method=NASTY, model="org/" + NASTY, rows=40, patients=12, predictions=False)
    invent_run(root, subset="colon", shots=5, method="full", status="failed", error="<b>out of memory</b>")
    board, _ = write_report(root, out)
    return board, out


def test_what_is_written_into_the_page_cannot_leave_its_place():
    data = {"name": NASTY, "line": "\u2028"}
    assert "<" not in inline_json(data) and json.loads(inline_json(data)) == data
    assert fill("{{a}} {{b}}", a="{{b}}", b="x") == "{{b}} x"


def test_the_page_names_no_other_file(report):
    _, out = report
    links = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attributes):
            links.extend(value for name, value in attributes if name in ("src", "href", "srcset", "action"))

    text = (out / "board.html").read_text()
    Links().feed(text)
    assert links and all(link.startswith(("#", "data:")) for link in links)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style and not re.search(r"\bfetch\(|XMLHttpRequest", text)


@pytest.fixture
def page(report, show):
    board, out = report
    return board, show((out / "board.html").as_uri())


def labels(driver):
    return [row.text.splitlines()[0] for row in driver.find_elements("css selector", "#board-table tbody tr:not(.reference) th")]


def choose(driver, name, value):
    driver.find_element("css selector", f"#{name} option[value='{value}']").click()


def test_the_board_shows_the_numbers_of_the_runs(page):
    board, driver = page
    row = driver.find_elements("css selector", "#board-table tbody tr")[
        [s.method for s in board.adaptations if s.method != "full"].index("linear")
    ]
    adaptation = next(s for s in board.adaptations if s.method == "linear")
    cells = [board.result(adaptation.key, subset, shots) for subset in ("chest", "colon") for shots in ("1", "5")]
    shown = [cell.text.splitlines() for cell in row.find_elements("css selector", "td")][:4]
    for cell, lines in zip(cells, shown, strict=True):
        estimate = cell.metrics["map" if cell.subset == "chest" else "accuracy"]
        low, high = estimate.seed_interval
        assert lines[:3] == [mean_and_spread(estimate), "3 split seeds", f"seeds {100 * low:.2f} to {100 * high:.2f}"]
        assert lines[3].startswith("test ")
    sections = [heading.text for heading in driver.find_elements("css selector", "h2")]
    assert sections == ["Board", "Score against shots", "Score against cost", "Class by class", "Paired comparison", "Published numbers",
                        "Missing from the grid", "Failed runs", "What this page cannot show", "What was run"]  # fmt: skip
    assert driver.get_log("browser") == []


def test_nothing_of_a_record_becomes_markup(page):
    _, driver = page
    assert any(NASTY in label for label in labels(driver))
    assert driver.find_elements("css selector", "img[src='x'], #failed b, #board-table b") == []
    assert "<b>out of memory</b>" in driver.find_element("id", "failed").text


def test_the_page_asks_nobody(page):
    _, driver = page
    asked = driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in asked if not name.startswith("data:")] == []


def test_the_page_writes_numbers_as_python_does(page):
    _, driver = page
    some = np.random.default_rng(0).random(500)
    halves = [0.00125, 0.00375, 0.00625, 0.00875, 0.78125, 0.12125, 0.015, 0.08345, -0.00125]  # percent that end half way, or seem to
    fractions = [0, 1, 0.6321, -1e-9, -0.5, *halves, *some]
    p_values = [0, 1, 0.5, 0.1234, 0.9996, 0.00123456, 0.000999, 0.0001, 0.00009999, 1.23e-5, 3.456e-120, *10 ** (-9 * some)]
    numbers = [0, 1, 999, 999.6, 1000, 1_125_000, 1_115_000, 85_801_732, 999_960, 99_950, 2.5e9, *range(1, 10_000_000, 99_991)]
    times = [0, 0.05, 0.25, 9.94, 9.96, 10.5, 11.5, 36.671, 1e5]
    cases = [("percent", percent, fractions), ("signed", partial(percent, sign="+"), fractions)]
    cases += [("pValue", p_value, p_values), ("count", count, numbers), ("secondsWords", seconds, times)]
    for name, write, values in cases:
        values = list(map(float, values))
        shown = driver.execute_script(f"return arguments[0].map((value) => {name}(value))", values)
        assert [(value, text) for value, text in zip(values, shown)] == [(value, write(value)) for value in values]
    cases = [(shots, splits, runs) for shots in ("1", "10", "pool", "train_20") for splits, runs in ((1, 1), (1, 5), (5, 5), (2, 4))]
    shown = driver.execute_script("return arguments[0].map((own) => [shotsWords(own[0]), seedsWords(...own)])", cases)
    assert shown == [[shots_words(case[0]), seeds_words(*case)] for case in cases]
    assert driver.execute_script("return [comparisons(1), comparisons(6)]") == [comparisons(1), comparisons(6)]


def test_headers_sort_by_mouse_and_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    board, driver = page
    button = lambda: driver.find_element("css selector", "#board-table button[data-by='1']")  # noqa: E731
    values = {s.label: c.metrics["map"].mean for s in board.adaptations if (c := board.result(s.key, "chest", "5"))}
    best_first = sorted(values, key=lambda label: -values[label])
    button().click()
    assert button().find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    assert labels(driver)[: len(values)] == best_first
    assert driver.switch_to.active_element == button()
    driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert button().find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    assert labels(driver)[: len(values)] == best_first[::-1] and len(labels(driver)) == len(values) + 1  # no value: at the end


def test_filters_narrow_the_board(page):
    _, driver = page
    everything = labels(driver)
    driver.find_element("id", "words").send_keys("VPT vit-base")
    assert [label for label in everything if "vpt" in label] == labels(driver)
    assert driver.switch_to.active_element.get_attribute("id") == "words"
    driver.find_element("id", "words").send_keys(" nothing like it")
    assert "No row fits" in driver.find_element("id", "board-table").text
    driver.refresh()
    choose(driver, "subset", "colon")
    choose(driver, "shots", "5")
    assert len(driver.find_elements("css selector", "#board-table thead tr:last-child th")) == 4  # name, one column, two of cost
    choose(driver, "protocol", "official")
    assert labels(driver) == []
    choose(driver, "references", "none")
    assert not driver.find_elements("xpath", "//*[@id='board-table']//*[text()='published']")


def test_metrics_switch_and_intervals_hide(page):
    board, driver = page
    choose(driver, "metric", "auc")
    first = board.result(board.adaptations[1].key, "chest", "1") or board.result(board.adaptations[2].key, "chest", "1")
    text = driver.find_element("id", "board-table").text
    assert mean_and_spread(first.metrics["auc"]) in text and "ChestDR, AUC" in text
    driver.find_element("id", "intervals").click()
    assert "test " not in driver.find_element("css selector", "#board-table tbody").text.replace("tested", "").replace("test set", "")


def test_the_comparison_is_antisymmetric_and_of_the_chosen_column(page):
    board, driver = page
    choose(driver, "compare-subset", "colon")
    comparison = next(c for c in board.comparisons if (c.subset, c.shots, c.metric) == ("colon", "5", "accuracy"))
    rows = driver.find_elements("css selector", "#comparison tbody tr")
    cells = [
        [cell.text.replace("▲ ", "").replace("▼ ", "").splitlines() for cell in row.find_elements("css selector", "td")] for row in rows
    ]
    assert len(rows) == len(comparison.adaptations)
    for pair in comparison.pairs:
        a, b = pair["a"], pair["b"]
        assert float(cells[a][b][0]) == pytest.approx(100 * pair["difference"], abs=0.006)
        assert float(cells[b][a][0]) == pytest.approx(-100 * pair["difference"], abs=0.006)
        assert cells[b][a][-1] == f"better in {pair['losses']} of {len(pair['seeds'])}"


def test_every_control_has_a_name_and_tables_have_captions(page):
    _, driver = page
    unnamed = driver.execute_script(
        "return [...document.querySelectorAll('select, input')].filter(e => !e.labels.length || !e.labels[0].textContent.trim()).length"
    )
    assert unnamed == 0
    assert driver.execute_script("return [...document.querySelectorAll('table')].every(t => t.caption && t.querySelector('th[scope=row]'))")
    assert driver.execute_script("return [...document.images].every(i => i.alt && i.complete && i.naturalWidth > 0)")


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_width_in_light_and_dark(report, show, width, scheme):
    driver = show((report[1] / "board.html").as_uri(), width, scheme)
    assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    ink, paper = driver.execute_script("const s = getComputedStyle(document.documentElement); return [s.color, s.backgroundColor]")
    brightness = lambda colour: sum(map(int, re.findall(r"\d+", colour)[:3]))  # noqa: E731
    assert (brightness(ink) > brightness(paper)) == (scheme == "dark") and abs(brightness(ink) - brightness(paper)) > 450


def test_print_hides_controls_and_opens_details(page):
    _, driver = page
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    assert not driver.find_element("css selector", ".controls").is_displayed()
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert driver.execute_script("return [...document.querySelectorAll('details')].every(d => d.open)")


def test_a_report_of_failures_alone_is_a_page(tmp_path, show):
    invent_run(tmp_path / "runs", subset="endo", status="failed")
    write_report(tmp_path / "runs", tmp_path / "out")
    driver = show((tmp_path / "out" / "board.html").as_uri())
    assert "out of memory" in driver.find_element("id", "failed").text and driver.get_log("browser") == []
