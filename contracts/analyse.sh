#!/bin/sh
# Reviews the contracts with three tools and fails on any finding:
#
#   coverage  at least 95 % of the lines that forge can measure
#   slither   no finding that is not answered beside the code or here
#   halmos    what tests named check_* state, for all inputs instead of some
#
# slither needs another web3 than Peergrid, so it and halmos have a virtual environment of their own in
# contracts/build. Each tool compiles only what it looks at, and only halmos needs the optimizer: under a minute.
set -eu
cd "$(dirname "$0")"
if [ ! -d node_modules/@foundry-rs/forge-linux-amd64 ]; then
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
fi
PATH="$PWD/node_modules/@foundry-rs/forge-linux-amd64/bin:$PATH"
venv=build/analysis
if [ ! -x $venv/bin/slither ] || [ ! -x $venv/bin/halmos ]; then
    "${PYTHON:-python3}" -m venv $venv
    $venv/bin/pip install --quiet --disable-pip-version-check slither-analyzer==0.11.6 halmos==0.3.3 "web3<8"
fi

# A project that consists of some files of this one: project NAME FILE...
project() {
    place=build/$1
    shift
    rm -rf "$place"
    mkdir -p "$place/src" "$place/test"
    cp foundry.toml solc.mjs "$place"
    ln -s "$PWD/node_modules" "$place/node_modules"
    for file; do cp "$file" "$place/$file"; done
}

# The gas of code that is not optimized says nothing; fuzzing for long is forge.sh's business.
mkdir -p build
FORGE_SNAPSHOT_EMIT=false FOUNDRY_FUZZ_RUNS=64 FOUNDRY_INVARIANT_RUNS=4 forge coverage --no-match-contract Gas \
    --report lcov --report-file build/lcov.info > build/coverage.log || { cat build/coverage.log; exit 1; }
node coverage.mjs build/lcov.info 95

# Of these detectors every finding is meant:
#   timestamp  withdrawals, deadlines and windows are about time; seconds that a block's maker can shift matter to none
#   assembly   Positions reads calldata; ClearedCredit is proved below
# Tests stay away: slither reads them as part of the system.
project slither src/*.sol
FOUNDRY_VIA_IR=false FOUNDRY_OPTIMIZER=false \
    $venv/bin/slither build/slither --filter-paths node_modules --exclude timestamp,assembly --fail-pedantic

# The legs of a settlement, as they are compiled for deployment.
project halmos src/ClearedCredit.sol test/ClearedCredit.t.sol test/Vm.sol
exec $venv/bin/halmos --root build/halmos --forge-build-out build/forge --function check_ \
    --solver-timeout-assertion 60000
