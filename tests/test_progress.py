"""Bars and messages: on standard error alone, and gone where nobody is to see them."""

import io

import pytest

from medfmc_hf.progress import bar, is_quiet, is_watched, notify, set_quiet


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_message_is_one_line_of_standard_error(capsys):
    notify("waiting for another process")
    assert capsys.readouterr() == ("", "waiting for another process\n")


def test_quiet_hides_messages_until_it_is_turned_off(capsys):
    set_quiet(True)
    assert is_quiet()
    notify("hidden")
    set_quiet(False)
    assert not is_quiet()
    notify("shown")
    assert capsys.readouterr() == ("", "shown\n")


def test_a_bar_shows_where_a_person_watches(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert is_watched()
    assert list(bar([3, 1, 2], desc="reading images")) == [3, 1, 2]
    shown = terminal.getvalue()
    assert "reading images" in shown and "0/3" in shown
    assert not shown.endswith("\n"), "it leaves no line behind"


@pytest.mark.parametrize("reason", ["hidden", "quiet", "log"])
def test_a_bar_that_nobody_is_to_see_passes_its_items_on(reason, monkeypatch):
    shown = io.StringIO() if reason == "log" else Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    set_quiet(reason == "quiet")
    assert list(bar(range(4), hidden=reason == "hidden")) == [0, 1, 2, 3]
    assert shown.getvalue() == ""
    assert is_watched() == (reason == "hidden")
