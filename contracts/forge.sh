#!/bin/sh
# Runs the contracts' own tests (unit, fuzz, invariants) with forge, all of it from npm (Linux on x86-64).
# Arguments go to "forge test".
set -eu
cd "$(dirname "$0")"
if [ ! -d node_modules/@foundry-rs/forge-linux-amd64 ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
fi
exec node_modules/@foundry-rs/forge-linux-amd64/bin/forge test "$@"
