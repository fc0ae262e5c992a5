"""A plain web server of a folder that answers range requests, as those that hold data do: `web_server FOLDER PORT`."""

import re
import sys
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path


class RangeHandler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        file = Path(self.translate_path(self.path))
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if match is None or not file.is_file():
            return super().do_GET()
        data = file.read_bytes()
        start = int(match[1]) if match[1] else max(len(data) - int(match[2]), 0)
        stop = min(int(match[2]) + 1, len(data)) if match[1] and match[2] else len(data)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Last-Modified", self.date_time_string(int(file.stat().st_mtime)))
        self.end_headers()
        self.wfile.write(data[start:stop])
        return None

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()


if __name__ == "__main__":
    folder, port = sys.argv[1:]
    HTTPServer(("127.0.0.1", int(port)), lambda *args: RangeHandler(*args, directory=folder)).serve_forever()
