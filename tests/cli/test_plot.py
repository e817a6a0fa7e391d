"""`hf-minilm plot` draws the curves of run folders, and a mistake is one line."""

import json

from hf_minilm.cli.main import main


def test_two_runs_are_drawn_and_named(tmp_path, capsys):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        lines = [{"step": step, "tokens": 10 * step, "loss": 3.0 / step} for step in (1, 2)]
        (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    output = tmp_path / "curves.svg"
    assert main(["plot", *map(str, folders), "--output", str(output), "--over", "step"]) == 0
    printed = [f"{folder}: step 2, loss 1.500" for folder in folders]
    assert capsys.readouterr().out.splitlines() == [*printed, str(output)]
    assert {">one<", ">two<", ">step<"} <= {f">{word.split('<')[0]}<" for word in output.read_text().split(">")}


def test_a_folder_that_is_no_run_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert main(["plot", str(tmp_path), "--output", str(tmp_path / "p.png")]) == 2
    error = capsys.readouterr().err
    assert (
        error == f"hf-minilm: run ({tmp_path}) must be a run folder with metrics.jsonl, or such a file; give another.\n"
    )
    assert list(tmp_path.iterdir()) == []
