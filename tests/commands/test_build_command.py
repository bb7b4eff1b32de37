import pytest
from trees import IMAGES, figshare

from medfmc_hf import cli
from medfmc_hf.data import lists
from medfmc_hf.data.loading import load_splits


def run(capsys, *argv):
    status = cli.main(list(map(str, argv)))
    return status, *capsys.readouterr()


def test_summary_says_what_there_is_what_is_absent_and_what_to_type_next(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figshare(tmp_path / "download", "endo", "retino")
    status, out, _ = run(capsys, "build", "download")
    assert status == 0
    endo = next(line for line in out.splitlines() if line.startswith("endo "))
    assert endo.split()[:4] == ["endo", "24", "8", "33"] and "exp1 to exp5" in endo
    assert "chest: not built; neither images nor labels are there." in out
    assert "medfmc is ready, with 49 configs" in out and "medfmc check medfmc" in out
    command = out.strip().splitlines()[-1]
    assert "load_dataset('medfmc', 'endo-5shot-seed0')" in command


def test_archives_are_named_where_a_subset_is_absent(tmp_path, capsys):
    figshare(tmp_path / "download", "retino")
    (tmp_path / "download" / "Endo.zip").write_bytes(b"PK")
    assert f"unzip -q '{tmp_path}/download/Endo.zip'" in run(capsys, "build", tmp_path / "download", "--out", tmp_path / "medfmc")[1]


def test_quiet_says_nothing_on_standard_error(tmp_path, capsys):
    figshare(tmp_path / "download", "retino")
    assert run(capsys, "build", tmp_path / "download", "--out", tmp_path / "medfmc", "--quiet")[2] == ""


def test_mistakes_end_in_one_message_and_status_2(tmp_path, capsys):
    status, out, err = run(capsys, "build", tmp_path / "nowhere")
    assert status == 2 and out == "" and "medfmc build: there is no" in err and "Traceback" not in err


def test_every_option_reaches_the_build(tmp_path, capsys):
    figshare(tmp_path / "lists", "endo")
    figshare(tmp_path / "download", "endo", "retino", "neojaundice", lists=False, side=20)
    (tmp_path / "download" / "Retino" / "images" / IMAGES["retino"][0][0]).unlink()
    options = ["--subsets", "endo", "retino", "neojaundice", "--lists", tmp_path / "lists/data_backup", "--embed", "--max-side", 10]
    options += ["--allow-missing", "--jaundice-threshold", "inclusive", "--out", tmp_path / "medfmc"]
    status, out, _ = run(capsys, "build", tmp_path / "download", *options)
    assert status == 0 and "built without them: 1 of 20" in out
    assert load_splits(tmp_path / "medfmc", "endo-1shot-seed0")["train"][0]["image"].size == (10, 10)
    assert 1 in {
        row["label"] for split in load_splits(tmp_path / "medfmc", "neojaundice").values() for row in split if row["bilirubin"] == 12.9
    }


@pytest.mark.parametrize("extra", [[], ["--lists-url", "http://127.0.0.1:9"]])
def test_fetch_lists(tmp_path, capsys, monkeypatch, extra):
    asked = []
    monkeypatch.setattr(lists, "fetch_lists", lambda subsets, base_url: asked.append(base_url) or figshare(tmp_path / "fetched", "endo"))
    figshare(tmp_path / "download", "endo", lists=False)
    status, out, _ = run(capsys, "build", tmp_path / "download", "--out", tmp_path / "medfmc", "--fetch-lists", *extra)
    assert status == 0 and asked == [extra[1] if extra else "https://raw.githubusercontent.com"] and "33 configs" in out


def test_help_names_the_releases(capsys):
    with pytest.raises(SystemExit):
        cli.main(["build", "--help"])
    text = capsys.readouterr().out
    for word in ("Grand Challenge", "figshare", "--fetch-lists", "--allow-missing", "--jaundice-threshold"):
        assert word in text
