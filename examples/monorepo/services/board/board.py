"""A page with the newest rides of each station: an app, served by the standard library."""

import csv
import html
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path

import flyte
import flyte.app
from libs.limits.plausible import plausible

env = flyte.app.AppEnvironment(
    name="board",
    image=flyte.Image.from_ref_name("ml"),
    resources=flyte.Resources(cpu=1, memory="256Mi"),
    scaling=flyte.app.Scaling(replicas=(0, 1)),
    requires_auth=False,
)


def newest_rides() -> dict[str, int]:
    with Path("data/rides.csv").open(newline="") as rows:
        rides = {row["station"]: int(row["rides"]) for row in csv.DictReader(rows)}
    return {station: count for station, count in sorted(rides.items()) if plausible(count)}


def page() -> str:
    rows = "".join(f"<li>{html.escape(s)}: {count}</li>\n" for s, count in newest_rides().items())
    template = resources.files("services.board").joinpath("page.html").read_text()
    return template.replace("{rows}", rows)


class Board(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = page().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@env.server
def serve() -> None:
    """Flyte's `fserve` calls this in the container, in a thread."""
    ThreadingHTTPServer(("", env.get_port().port), Board).serve_forever()
