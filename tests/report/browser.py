"""A page in headless Chromium, without a network, as a probe sees it."""

import hashlib
import html
import json
import re
import shutil
import subprocess

CHROMIUM = next(
  filter(
    None,
    map(
      shutil.which,
      ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    ),
  ),
  None,
)

_PROBE = """<script>
addEventListener("load", () => setTimeout(() => {
  const table = document.querySelector("table.sortable");
  const shown = () =>
    [...table.tBodies[0].rows].map((row) => row.cells[0].innerText);
  const before = shown();
  const press = (i) => table.querySelectorAll("button.sort")[i].click();
  press(4); const recall = shown(); press(4); const risen = shown();
  document.title = JSON.stringify({
    sections: [...document.querySelectorAll("section")]
      .filter((s) => s.getBoundingClientRect().height > 40).map((s) => s.id),
    images: [...document.images].map((i) => i.complete && i.naturalWidth),
    charts: [...document.querySelectorAll("svg")]
      .map((s) => s.getBoundingClientRect().width),
    fetched: performance.getEntriesByType("resource").map((e) => e.name)
      .filter((name) => !name.startsWith("data:")),
    refused: window.refused, errors: window.errors,
    wide: document.documentElement.scrollWidth - innerWidth,
    ink: getComputedStyle(document.body).color,
    paper: getComputedStyle(document.body).backgroundColor,
    before, recall, risen,
  });
}, 100));
</script>"""
_WATCH = """<script>
window.errors = []; window.refused = [];
addEventListener("error", (e) => errors.push(e.message || e.target.src), true);
addEventListener("securitypolicyviolation", (e) => refused.push(e.blockedURI));
</script>"""


def browse(page, folder, *, width=1200, dark=False, extra=""):
  """What a browser sees: the probe's findings and the console's lines."""
  text = page.replace("<style>", f"{_WATCH}<style>", 1)
  text = text.replace("</body>", f"{extra}{_PROBE}</body>")
  digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
  file = folder / f"{digest}.html"
  file.write_text(text, encoding="utf-8")
  options = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no network
    "--enable-logging=stderr",
    "--virtual-time-budget=3000",
    f"--user-data-dir={folder / 'profile'}",
    f"--window-size={width},900",
    *["--blink-settings=preferredColorScheme=0"] * dark,
  ]
  done = subprocess.run(
    [CHROMIUM, *options, "--dump-dom", f"file://{file}"],
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
  )
  title = re.search(r"<title>(\{.*?\})</title>", done.stdout, re.DOTALL)
  assert title, done.stdout[-2000:] + done.stderr[-2000:]
  console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
  return json.loads(html.unescape(title[1])), console
