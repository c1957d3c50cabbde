#!/bin/sh
# Runs the contracts' own tests (unit, fuzz, invariants) with forge, all of it from npm.
# Arguments go to "forge test".
set -eu
cd "$(dirname "$0")"
if [ ! -d node_modules/@foundry-rs/forge ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
fi
exec node_modules/.bin/forge test "$@"
