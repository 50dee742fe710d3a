"""The page of `vtb data view` in a real browser: Chromium plays a clip and filters."""

import json
import queue
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from voicetextblender import audio
from voicetextblender.chat import Audio, Conversation, assistant, to_line, user
from voicetextblender.data.view import write_view

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--mute-audio", "--autoplay-policy=no-user-gesture-required", "--window-size=1000,800"),
)
# What a visitor does, from a page around it, since the page itself lets no other script run.
VISIT = b"""<!doctype html><iframe src="/view.html" width="1000" height="800"></iframe><script>
const told = { errors: [] };
const tell = () => fetch("/", { method: "POST", body: JSON.stringify(told) });
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const { contentDocument: page, contentWindow: view } = frame;
  view.addEventListener("error", (event) => told.errors.push(event.message));
  const press = (key) =>
    page.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const shown = () => [...page.querySelectorAll(".talk")].filter((t) => !t.hidden).length;
  const form = page.getElementById("filters");
  told.all = shown();
  form.elements.search.value = "goats";
  form.dispatchEvent(new Event("input"));
  told.found = shown();
  told.output = form.querySelector("output").textContent;
  press("j");
  told.focused = page.activeElement.querySelector("h2").textContent;
  const player = page.activeElement.querySelector("audio");
  player.addEventListener("ended", () => setTimeout(() => {
    told.duration = player.duration;
    told.played = player.currentTime;
    told.width = +page.activeElement.querySelector(".played").getAttribute("width");
    tell();
  }, 300));
  press("p");
  setTimeout(() => { told.late = true; tell(); }, 60000);
});
</script>"""


@pytest.fixture
def visit():
    """Return a function that opens a page in Chromium and returns what the page tells."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed; run: apt-get install chromium")
    answers: queue.Queue[bytes] = queue.Queue()
    pages = {"/": VISIT}

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path in pages else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(pages.get(self.path, b""))

        def do_POST(self):
            answers.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    def open_page(page, profile):
        pages["/view.html"] = page
        address = f"http://127.0.0.1:{server.server_port}/"
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0"]
        browser = subprocess.Popen([*command, address], stderr=subprocess.DEVNULL)
        try:
            return json.loads(answers.get(timeout=120))
        finally:
            browser.terminate()
            browser.wait(20)

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield open_page
        server.shutdown()


def test_a_clip_is_found_by_its_words_played_to_its_end_and_its_waveform_follows(
    tmp_path, sound, visit
):
    talks = []
    for name, length_s in (("cats", 0.4), ("goats", 1.2), ("mice", 0.4)):
        audio.save(tmp_path / f"{name}.flac", sound(length_s))
        heard = Audio(f"{name}.flac", text=f"We saw {name} here.")
        turns = (user("Write it down.", heard), assistant(f"We saw {name} here."))
        talks.append(Conversation(name, turns, "asr", "en", {"voice": "v"}))
    (tmp_path / "set.jsonl").write_text("\n".join(map(to_line, talks)), encoding="utf-8")
    write_view([str(tmp_path / "set.jsonl")], tmp_path / "view.html")
    told = visit((tmp_path / "view.html").read_bytes(), tmp_path / "profile")
    assert told["errors"] == [] and "late" not in told
    assert (told["all"], told["found"], told["focused"]) == (3, 1, "goats")
    assert told["output"] == "1 of 3 shown"
    assert told["duration"] == pytest.approx(1.2, abs=0.05)
    assert told["played"] == pytest.approx(told["duration"], abs=0.05)
    assert told["width"] > 0
