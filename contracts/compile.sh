#!/bin/sh
# Compiles the contracts with npm's solc: writes contracts/artifacts, or with --check fails if they differ.
set -eu
cd "$(dirname "$0")"
if [ ! -d node_modules/solc ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error
fi
exec node build.mjs "$@"
