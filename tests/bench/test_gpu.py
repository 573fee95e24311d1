import re

import pytest

pytest.importorskip("torch")

from tests.bench import gpu


def test_the_gpu_bench_runs_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--device", "cpu", "--seconds", "0", "--largest", "2", "--threads", "1"])
    told = capsys.readouterr().out
    assert re.search(r"^ceilings: \d+\.\d+ TFLOP/s, \d+\.\d GB/s on the device", told, re.M)
    assert re.search(r"^encoder: [1-9]\d+ MFLOP and \d+\.\d MB a crop$", told, re.M)
    assert re.search(r"^a crop is 147 kB, its features 492 kB$", told, re.M)
    assert re.findall(r"^(\w+) on cpu, crops a second$", told, re.M) == ["torch", "onnxruntime"]
    for batch in (1, 2):
        rows = re.findall(rf"^ +{batch}(?: +\d+\.\d){{5}}(?: +\d+\.\d%){{2}}$", told, re.M)
        assert len(rows) == 2, told
    assert re.search(r"^  its crops are at most 0 grey levels .* 0\.000 px at p99$", told, re.M)
    assert re.search(r"^  memory: [1-9]\d+ MB", told, re.M)


def test_the_gpu_bench_says_that_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "torch finds no GPU here" in capsys.readouterr().err
