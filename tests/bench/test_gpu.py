import re

import pytest

pytest.importorskip("torch")

from tests.bench import gpu


def test_the_gpu_bench_runs_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--device", "cpu", "--seconds", "0", "--largest", "2", "--threads", "1"])
    told = capsys.readouterr().out
    assert re.search(r"^ceilings: \d+\.\d+ TFLOP/s, \d+\.\d GB/s on the device", told, re.M)
    assert re.search(r"^encoder: [1-9]\d+ MFLOP and \d+\.\d MB a crop$", told, re.M)
    for batch in (1, 2):
        assert re.search(rf"^ +{batch}( +\d+\.\d){{4}}( +\d+\.\d%){{2}}$", told, re.M), told
    assert re.search(r"^  memory: [1-9]\d+ MB", told, re.M)


def test_the_gpu_bench_says_that_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "torch finds no GPU here" in capsys.readouterr().err
