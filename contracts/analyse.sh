#!/bin/sh
# Reviews the contracts with three tools and fails on any finding:
#
#   coverage  at least 95 % of the lines that forge can measure
#   slither   no finding that is not answered beside the code or here
#   halmos    what tests named check_* state, for all inputs instead of some
#
# slither needs another web3 than Peergrid, so both have a virtual environment of their own in contracts/build.
# Not part of .ci/run: it takes about four minutes, most of them compiling for each tool.
set -eu
cd "$(dirname "$0")"
if [ ! -d node_modules/@foundry-rs/forge-linux-amd64 ]; then
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
fi
PATH="$PWD/node_modules/@foundry-rs/forge-linux-amd64/bin:$PATH"
venv=build/analysis
if [ ! -x $venv/bin/slither ]; then
    "${PYTHON:-python3}" -m venv $venv
    $venv/bin/pip install --quiet --disable-pip-version-check slither-analyzer==0.11.6 halmos==0.3.3 "web3<8"
fi

# Of these detectors every finding is meant:
#   timestamp  withdrawals, deadlines and windows are about time; seconds that a block's maker can shift matter to none
#   assembly   Positions reads calldata; ClearedCredit is proved below
# Tests stay away: slither reads them as part of the system.
reviewed=build/slither
rm -rf $reviewed
mkdir -p $reviewed
cp -r src foundry.toml solc.mjs $reviewed
ln -s "$PWD/node_modules" $reviewed/node_modules
$venv/bin/slither $reviewed --filter-paths node_modules --exclude timestamp,assembly --fail-pedantic

# halmos needs syntax trees, which forge leaves out of what it compiled before.
rm -rf build/forge build/forge-cache
$venv/bin/halmos --function check_ --forge-build-out build/forge --solver-timeout-assertion 60000

FORGE_SNAPSHOT_EMIT=false forge coverage --ir-minimum --report lcov --report-file build/lcov.info > build/coverage.log
exec node coverage.mjs build/lcov.info 95
