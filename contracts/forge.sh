#!/bin/sh
# Runs the contracts' own tests (unit, fuzz, invariants) with forge, all of it from npm (Linux on x86-64), and fails
# where the gas of snapshots/*.json has changed. Arguments go to "forge test"; after a change that is meant:
#
#   FORGE_SNAPSHOT_CHECK=false contracts/forge.sh
set -eu
cd "$(dirname "$0")"
if [ ! -d node_modules/@foundry-rs/forge-linux-amd64 ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
fi
export FORGE_SNAPSHOT_CHECK="${FORGE_SNAPSHOT_CHECK:-true}"
exec node_modules/@foundry-rs/forge-linux-amd64/bin/forge test "$@"
