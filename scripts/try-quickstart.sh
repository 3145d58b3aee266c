#!/usr/bin/env bash
# The README's quick start, word for word, in a fresh clone: `make run`, then a call from a second shell, and what a
# browser fetches.
# Only the port is another, so that a peer that runs already is not disturbed.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$(mktemp -d)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export BV_DISCOVERY__LISTEN=127.0.0.1:$port BV_SERVER__ADDRESS=ws://127.0.0.1:$port

git clone --quiet "$repository" "$folder/bonevalue"
cd "$folder/bonevalue"
make run >"$folder/log" 2>&1 &
daemon=$!
finish() {
    kill -TERM "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
    rm -rf "$folder"
}
trap finish EXIT

for _ in $(seq 600); do
    if grep -q 'online as admin' "$folder/log"; then
        break
    fi
    if ! kill -0 "$daemon" 2>/dev/null; then
        break
    fi
    sleep 0.5
done
if ! grep -q 'online as admin' "$folder/log"; then
    echo 'make run did not come online; it printed:' >&2
    cat "$folder/log" >&2
    exit 1
fi
answer=$(.venv/bin/bv call Us My.Echo.Module '{"text": "Friday"}')
echo "$answer"
grep -qF '{"text": "Not Friday"}' <<<"$answer"
.venv/bin/python - "http://127.0.0.1:$port" server/bonevalue_server/browser <<'END'
import sys
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

server, built = sys.argv[1], Path(sys.argv[2])
fetch = build_opener(ProxyHandler({})).open
for path, file in {"/scripts/BV.js": "BV.js", "/console/": "console/index.html"}.items():
    with fetch(server + path) as answer:
        assert answer.read() == (built / file).read_bytes(), path
    print(f"{path} is served")
END
