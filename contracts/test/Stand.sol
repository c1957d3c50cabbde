// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DemoEuro} from "../src/DemoEuro.sol";
import {MarketEscrow} from "../src/MarketEscrow.sol";
import {vm} from "./Vm.sol";

/// @notice An escrow whose admin, settler and pauser is the test, which has euros to deposit.
abstract contract Stand {
    bytes32 internal constant MARKET = keccak256("test");
    uint64 internal constant DELAY = 1 hours;
    uint64 internal constant RECOVERY = 1 days;

    DemoEuro internal euro;
    MarketEscrow internal escrow;

    function _begin(uint56 positionMax, uint56 windowMax, uint56 guaranteeMax) internal {
        vm.warp(1_700_000_000);
        euro = new DemoEuro(address(this));
        escrow = _escrowOf(address(this), positionMax, windowMax, guaranteeMax);
        euro.mint(address(this), 1e24);
        euro.approve(address(escrow), 1e24);
    }

    function _escrowOf(address admin, uint56 positionMax, uint56 windowMax, uint56 guaranteeMax)
        internal
        returns (MarketEscrow)
    {
        return new MarketEscrow(
            "Test", "T", euro, MarketEscrow.Delays(DELAY, RECOVERY), admin, address(this), address(this), positionMax, windowMax, guaranteeMax, 1 days
        );
    }
}
