"""The page in the browser computes what the package computes."""

import base64
import functools
import http.server
import io
import json
import queue
import shutil
import subprocess
import threading
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from entry_points import load_program
from PIL import Image

from deepprism_jax.models import AutoencoderKL
from deepprism_jax.ops import to_float

DEMO = Path(__file__).parents[2] / "demo"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

DRIVE = """
(async () => {
  const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "image.png", { type: "image/png" }));
  const until = async (state) => {
    while (document.body.dataset.state !== state) {
      await new Promise((r) => setTimeout(r, 50));
    }
  };
  const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
  const drop = new DragEvent("drop", options);
  document.getElementById("bits").value = 8;
  document.getElementById("drop").dispatchEvent(drop);
  await until("done");
  const { code, rounded, image, rows } = window.deepprism;
  const result = { rows, text: document.body.innerText };
  for (const [name, x] of Object.entries({ code, rounded, image })) {
    result[name] = { shape: [x.h, x.w, x.c], data: Array.from(x.data) };
  }
  await fetch("result", { method: "POST", body: JSON.stringify(result) });
})();
"""


def model_name():
    text = (DEMO / "model.js").read_text()
    return json.loads(text[text.index("{") : text.rindex("}") + 1])["name"]


def test_the_page_runs_the_weights_of_the_package():
    make = load_program("demo/make_model.py")
    name = model_name()
    wanted = make.text_of(AutoencoderKL.from_pretrained(name), name)
    # If not: python demo/make_model.py NAME
    assert (DEMO / "model.js").read_text() == wanted


def test_the_page_asks_nothing_of_the_network():
    for path in DEMO.glob("*.*"):
        assert "http" not in path.read_text(), path.name


@pytest.fixture
def served(tmp_path):
    """A copy of the page over HTTP, as a user serves it, and what it sends back."""
    folder = shutil.copytree(DEMO, tmp_path / "demo")
    results = queue.Queue()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            results.put(json.loads(self.rfile.read(length)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format, *args):
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/index.html", results
        server.shutdown()


def found(value):
    return np.array(value["data"], np.float32).reshape(value["shape"])


@pytest.mark.slow
def test_a_dropped_image_gives_the_numbers_of_the_package(served, tmp_path):
    browser = next(filter(shutil.which, BROWSERS), None)
    if browser is None:
        pytest.skip(f"no browser; install one of {', '.join(BROWSERS)}")
    folder, address, results = served
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    pixels = pixels.repeat(4, 0).repeat(4, 1)  # 32 x 48
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    content = base64.b64encode(buffer.getvalue()).decode()
    page = (folder / "index.html").read_text()
    script = f"<script>{DRIVE % content}</script></body>"
    (folder / "index.html").write_text(page.replace("</body>", script))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0"]
    process = subprocess.Popen(
        [*command, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        result = results.get(timeout=120)
    finally:
        process.terminate()
        process.wait()

    model = AutoencoderKL.from_pretrained(model_name())
    code = np.asarray(model.encode(to_float(jnp.asarray(pixels[None]))).mode())[0]
    np.testing.assert_allclose(found(result["code"]), code, atol=1e-4)
    rounded = found(result["rounded"])
    step = np.ptp(code, axis=(0, 1)) / 255
    assert (np.abs(rounded - code) <= 0.5 * step + 1e-4).all()
    image = np.asarray(model.decode(jnp.asarray(rounded[None])))[0]
    np.testing.assert_allclose(found(result["image"]), image, atol=1e-4)

    (_, own, psnr), (_, jpeg, *_), (_, webp, *_) = result["rows"]
    shown = np.round((np.clip(image, -1, 1) + 1) * 127.5)
    wanted = 10 * np.log10(255**2 / np.mean((shown - pixels) ** 2))
    assert psnr == pytest.approx(wanted, abs=0.01)
    assert own < 5 + 8 * 3 + code.size * 1.1 + 20
    assert min(jpeg, webp) > 0
    assert f"{len(shown[0])} x {len(shown)} pixels" in result["text"]
