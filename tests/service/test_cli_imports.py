"""`subpose models import` and `pull`, against files and a file server of this machine."""

import hashlib
import json
import shlex
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from models.bundle import BUNDLES, load_bundle
from service.catalog import load_catalog
from service.cli import app
from service.cli.options import settings_of
from tests.models.elsewhere import heatmap_network, simcc_network

SAID = ("--licence", "Apache-2.0", "--source", "a test")


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's own bundles."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "subpose" / "bundles"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        # What a careless or hostile server does.
        if self.path == "/to-a-file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.end_headers()
        elif self.path == "/round":
            self.send_response(302)
            self.send_header("Location", "/round")
            self.end_headers()
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(64):
                    self.wfile.write(bytes(1 << 20))
            except OSError:
                pass
        elif self.path == "/cut-off":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(bytes(10))
        else:
            super().do_GET()


class Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        pass  # that a client leaves is what is tested; its stderr is the command's here


@pytest.fixture
def url(files: Path) -> Iterator[str]:
    server = Server(("127.0.0.1", 0), partial(Quiet, directory=files))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def models(*arguments: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["models", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def bundle_zip(path: Path, name: str = "theirs", prefix: str = "theirs/") -> Path:
    """Made as one would: a folder of weights, zipped."""
    manifest = json.loads((BUNDLES / "pose-s" / "manifest.json").read_text())
    manifest["name"] = name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{prefix}manifest.json", json.dumps(manifest))
        for file in (BUNDLES / "pose-s").glob("*.onnx"):
            archive.write(file, prefix + file.name)
        archive.writestr(f"{prefix}CARD.md", "# theirs")
        archive.writestr(f"{prefix}run.sh", "echo no")
        archive.writestr(f"{prefix}stray.onnx", "named by no manifest")
    return path


def test_a_network_is_imported_in_one_line_and_listed(files: Path, own: Path) -> None:
    file = simcc_network(files / "RTMPose-x.onnx", joints=26)
    result = models("import", file, *SAID)
    assert result.stdout.strip() == str(own / "rtmpose-x")
    assert "simcc network of 26 keypoints on 48x64 px" in result.stderr
    assert "subpose serve --model rtmpose-x" in result.stderr
    manifest = load_bundle(own / "rtmpose-x").pose
    assert manifest.licence == "Apache-2.0"
    assert manifest.provenance.start == f"a test (RTMPose-x.onnx, sha256 {digest(file)})"
    assert (manifest.crop.matrix, manifest.crop.padding) == ("legacy", 1.25)
    (row,) = [row for row in models().stdout.splitlines() if "rtmpose-x" in row]
    assert row.split()[:4] == ["rtmpose-x", "halpe26", "simcc", "48x64"]


def test_mmdeploys_zip_is_imported_as_it_was_downloaded(files: Path, own: Path) -> None:
    network = simcc_network(files / "end2end.onnx", joints=133)
    with zipfile.ZipFile(files / "rtmw-m.zip", "w") as archive:
        archive.write(network, "20230831/rtmpose_onnx/rtmw-m/end2end.onnx")
        archive.writestr("20230831/rtmpose_onnx/rtmw-m/deploy.json", "{}")
    models("import", files / "rtmw-m.zip", *SAID)
    assert load_bundle(own / "rtmw-m").pose.keypoint_set == "wholebody133"


def test_every_option_reaches_the_manifest(files: Path, own: Path) -> None:
    file = heatmap_network(files / "h.onnx", features=17)
    models(
        "import", file, *SAID, "--to", own.parent / "more", "--name", "theirs", "--matrix", "udp",
        "--padding", "1.5", "--mean", "0,0,0", "--std", "255,255,255", "--channels", "BGR",
        "--decode", "quarter", "--sigma", "1.5", "--blur", "7", "--output", "maps",
        "--size", "48x64", "--keypoints", "coco17",
    )  # fmt: skip
    manifest = load_bundle(own.parent / "more" / "theirs").pose
    assert (manifest.crop.matrix, manifest.crop.padding) == ("udp", 1.5)
    spec = manifest.heads.heatmap
    assert spec is not None
    assert (spec.decode, spec.sigma, spec.blur, spec.grid) == ("quarter", 1.5, 7, "udp")
    assert "BGR, mean (0.0, 0.0, 0.0), std (255.0, 255.0, 255.0)" in manifest.provenance.recipe
    models("import", simcc_network(files / "s.onnx"), *SAID, "--sigma", "4,5", "--beta", "0")
    simcc = load_bundle(own / "s").pose.heads.simcc
    assert simcc is not None
    assert (simcc.sigma, simcc.beta) == ((4.0, 5.0), None)


def test_a_bundle_is_pulled_and_verified(files: Path, url: str, own: Path) -> None:
    file = bundle_zip(files / "theirs-1.zip")
    result = models("pull", f"{url}/theirs-1.zip", "--sha256", digest(file).upper())
    assert result.stdout.strip() == str(own / "theirs")
    pulled = load_bundle(own / "theirs")
    assert pulled.pose.heads == load_bundle(BUNDLES / "pose-s").pose.heads
    # What no manifest names is not unpacked.
    assert {path.name for path in pulled.path.iterdir()} == {
        "manifest.json", "CARD.md", *pulled.manifest.files,
    }  # fmt: skip
    again = models("pull", f"{url}/theirs-1.zip", "--sha256", digest(file), code=2)
    assert "is there already" in again.stderr
    models("pull", f"{url}/theirs-1.zip", "--sha256", digest(file), "--replace")
    assert load_bundle(own / "theirs") == pulled


def test_a_network_is_pulled_and_says_where_it_came_from(files: Path, url: str, own: Path) -> None:
    file = heatmap_network(files / "hrnet w32.onnx")
    where = f"{url}/hrnet%20w32.onnx"
    models("pull", f"{where}?signature=secret", "--sha256", digest(file), "--licence", "MIT")
    start = load_bundle(own / "hrnet-w32").pose.provenance.start
    assert start.startswith(f"{where} (")


@pytest.mark.parametrize(
    ("path", "more", "said"),
    [
        ("theirs.zip", (), "--sha256"),
        ("theirs.zip", ("--sha256", "12"), "no sha256"),
        ("theirs.zip", ("--sha256", "0" * 64), "it is another file"),
        ("theirs.zip", ("--sha256", "0" * 64, "--largest-mb", "1"), "over --largest-mb"),
        ("none.zip", ("--sha256", "0" * 64), "404"),
        ("to-a-file", ("--sha256", "0" * 64), "is not allowed"),
        ("endless", ("--sha256", "0" * 64, "--largest-mb", "5"), "beyond --largest-mb"),
        ("cut-off", ("--sha256", "0" * 64), "/cut-off ends after 10 of 1000 bytes"),
        ("round", ("--sha256", "0" * 64), "infinite loop"),
        ("theirs.zip?signature=secret", ("--sha256", "0" * 64), "/theirs.zip has sha256"),
        ("none.zip?signature=secret", ("--sha256", "0" * 64), "/none.zip: 404"),
    ],
)
def test_what_is_not_the_file_that_is_meant_is_not_kept(
    files: Path, url: str, own: Path, path: str, more: tuple[str, ...], said: str
) -> None:
    bundle_zip(files / "theirs.zip")
    stderr = models("pull", f"{url}/{path}", *more, code=2).stderr
    assert said in stderr
    assert stderr.count("\n") == 1
    assert "secret" not in stderr
    assert not own.exists()


def test_a_scheme_is_read_in_any_case(files: Path, url: str, own: Path) -> None:
    file = bundle_zip(files / "theirs.zip")
    models("pull", f"{url.upper()}/theirs.zip", "--sha256", digest(file))
    assert load_bundle(own / "theirs").manifest.name == "theirs"


def test_a_password_is_refused_and_not_printed(files: Path, url: str) -> None:
    file = bundle_zip(files / "theirs.zip")
    secret = url.replace("//", "//someone:hunter2@")
    refused = models("pull", f"{secret}/theirs.zip", "--sha256", digest(file), code=2)
    assert f"{url}/theirs.zip: no user or password is sent" in refused.stderr
    elsewhere = models("pull", "ftp://someone:hunter2@host/a.zip", code=2)
    assert "hunter2" not in refused.stderr + elsewhere.stderr


@pytest.mark.parametrize(
    "source", ["ftp://127.0.0.1/a.zip", "file:///etc/hostname", "http://[::1/a.zip"]
)
def test_only_http_is_fetched(source: str) -> None:
    refused = models("pull", source, "--sha256", "0" * 64, code=2)
    assert "only http and https" in refused.stderr


def test_a_server_that_is_not_there_is_named(files: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.server_close()
    where = f"http://127.0.0.1:{server.server_port}/a.zip"
    refused = models("pull", where, "--sha256", "0" * 64, code=2)
    assert f"{where} cannot be fetched" in refused.stderr


def test_no_path_of_an_archive_leads_out_of_its_folder(files: Path, own: Path) -> None:
    file = bundle_zip(files / "bad.zip", prefix="../../")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("../../../escaped.onnx", b"no")
        archive.writestr("/tmp/subpose-escaped.onnx", b"no")
    before = {path for path in files.parent.glob("**/*") if own not in path.parents}
    models("import", file)
    made = {path for path in files.parent.glob("**/*") if own not in path.parents} - before
    assert made <= {own, *own.parents}
    assert not Path("/tmp/subpose-escaped.onnx").exists()
    assert load_bundle(own / "theirs").path == own / "theirs"


def test_a_damaged_bundle_leaves_nothing_behind(files: Path, own: Path) -> None:
    file = bundle_zip(files / "bad.zip")
    with zipfile.ZipFile(files / "worse.zip", "w") as worse, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if not info.filename.endswith("simcc.onnx"):
                worse.writestr(info, archive.read(info))
    assert "simcc.onnx cannot be read" in models("import", files / "worse.zip", code=2).stderr
    assert not list(own.iterdir())
    broken = bundle_zip(files / "broken.zip", name="No Name")
    # As the user knows it, not as the folder of the draft.
    assert "broken.zip/manifest.json: pose.name" in models("import", broken, code=2).stderr
    assert not list(own.iterdir())


def test_a_bundle_whose_name_is_taken_gets_another(files: Path, own: Path) -> None:
    taken = bundle_zip(files / "taken.zip", name="person-n")
    assert "choose another --name" in models("import", taken, code=2).stderr
    models("import", taken, "--name", "mine")
    assert load_bundle(own / "mine").manifest.name == "mine"


def test_a_bundle_is_told_nothing_of_networks(files: Path, own: Path) -> None:
    file = bundle_zip(files / "theirs.zip")
    refused = models("import", file, "--sigma", "6", "--channels", "RGB", code=2)
    assert "--channels, --sigma: theirs.zip holds a bundle" in refused.stderr
    assert not own.exists()


def test_a_folder_is_the_same_however_it_is_spelt(files: Path, own: Path) -> None:
    # Told relatively, the folder of the committed bundles once took a second pose-s.
    taken = bundle_zip(files / "taken.zip", name="pose-s")
    own.mkdir(parents=True)
    for to in ("home/subpose/bundles", "home/subpose/../subpose/bundles", "elsewhere"):
        refused = models("import", taken, "--to", to, code=2)
        assert "has that name already" in refused.stderr
    said = models("import", taken, "--to", "home/subpose/bundles", "--name", "mine").stderr
    assert "--bundles" not in said
    assert load_bundle(own / "mine").manifest.name == "mine"


def test_the_line_that_is_said_to_serve_it_does(files: Path) -> None:
    file = simcc_network(files / "s.onnx")
    said = models("import", file, *SAID, "--to", "more of them").stderr
    words = shlex.split(said.rpartition("Serve it: ")[2])
    assert words[:2] == ["subpose", "serve"]
    flags = list(zip(words[2::2], words[3::2], strict=True))
    settings = settings_of(
        bundles=[Path(value) for flag, value in flags if flag == "--bundles"],
        engine="onnxruntime",
        **{flag.removeprefix("--"): value for flag, value in flags if flag != "--bundles"},
    )
    catalog = load_catalog(settings)
    assert catalog.default_model == "s"
    assert {"s", "pose-s"} <= set(catalog.models)
    assert catalog.default_detector == "person-n"


@pytest.mark.parametrize("length", [0.5, 0.9])
def test_a_zip_that_was_cut_short_is_said_to_be_damaged(files: Path, length: float) -> None:
    whole = bundle_zip(files / "whole.zip").read_bytes()
    (files / "cut.zip").write_bytes(whole[: int(len(whole) * length)])
    refused = models("import", files / "cut.zip", *SAID, code=2)
    assert "cut.zip cannot be unpacked, the zip is damaged" in refused.stderr


def test_a_folder_is_no_file(files: Path) -> None:
    assert "is a folder: give a file" in models("import", files, code=2).stderr


def test_an_archive_of_neither_is_refused(files: Path) -> None:
    with zipfile.ZipFile(files / "a.zip", "w") as archive:
        archive.writestr("a.onnx", "a")
        archive.writestr("b.onnx", "b")
    refused = models("import", files / "a.zip", *SAID, code=2)
    assert "a.zip holds a.onnx, b.onnx; expected a bundle" in refused.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--licence: licence of the weights?"),
        (("--licence", "MIT"), "--source: where they come from?"),
        ((*SAID, "--size", "192"), "--size: '192' is not like 192x256"),
        ((*SAID, "--mean", "1,2"), "--mean: '1,2' is not three numbers"),
        ((*SAID, "--std", "0,1,1"), "--std"),
        ((*SAID, "--sigma", "wide"), "--sigma: 'wide' is not one number"),
        ((*SAID, "--sigma", "nan"), "--sigma: nan is no finite number"),
        ((*SAID, "--sigma", "4,0"), "--sigma: '4,0' is not above 0"),
        ((*SAID, "--std", "nan,1,1"), "--std: nan is no finite number"),
        ((*SAID, "--mean", "0,inf,0"), "--mean: inf is no finite number"),
        ((*SAID, "--beta", "inf"), "--beta: inf is no finite number"),
        ((*SAID, "--name", "A b"), "--name: 'A b' is not lower-case letters"),
        ((*SAID, "--sha256", "0" * 64), "it is another file"),
        ((*SAID, "--keypoints", "coco18"), "'coco18' is not one of coco17"),
    ],
)
def test_what_is_wrong_with_the_command_is_said(
    files: Path, own: Path, options: tuple[str, ...], said: str
) -> None:
    file = simcc_network(files / "s.onnx")
    assert said in models("import", file, *options, code=2).stderr
    assert not own.exists() or not list(own.iterdir())


def test_a_file_that_is_not_there_is_named(files: Path) -> None:
    assert (
        "none.onnx: there is no such file" in models("import", files / "none.onnx", code=2).stderr
    )


def test_without_onnx_the_extra_is_named_and_bundles_still_come(files: Path, own: Path) -> None:
    without = "import sys; sys.modules['onnx'] = None; from service.cli import app; app()"
    command = [sys.executable, "-c", without, "models", "import"]
    file = simcc_network(files / "s.onnx")
    refused = subprocess.run([*command, file, *SAID], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "pip install -e '.[cpu,import]'" in refused.stderr
    subprocess.run([*command, bundle_zip(files / "theirs.zip")], check=True, capture_output=True)
    assert (own / "theirs").is_dir()
