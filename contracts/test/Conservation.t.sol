// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Stand} from "./Stand.sol";

/// @notice A settlement between three accounts, whatever their amounts and signs, either reverts and changes nothing or
/// conserves credit, its backing and the guarantee. The legs themselves are proved in {ClearedCreditTest}.
contract ConservationTest is Stand {
    uint256 private constant HELD = 100e6;
    uint256 private constant FUND = 50e6;

    function setUp() public {
        _begin(1e15, 1e15, 1e15);
        escrow.depositFor(address(0xA), HELD);
        escrow.depositFor(address(0xB), HELD);
        escrow.depositGuarantee(FUND);
    }

    function testFuzz_ABalancedSettlementConservesCredit(int32 first, int32 second) external {
        _settle(first, second, int64(-(int256(first) + second)));
    }

    function testFuzz_AnySettlementConservesCredit(int64 first, int64 second, int64 third) external {
        _settle(first, second, third);
    }

    function _settle(int64 first, int64 second, int64 third) private {
        bytes memory positions =
            abi.encodePacked(address(0xA), first, address(0xB), second, address(0xC), third);
        try escrow.settle(MARKET, 0, 0, 0, positions) {
            assert(int256(first) + second + third == 0);
            assert(escrow.isSettled(MARKET, 0, 0));
        } catch {
            assert(escrow.balanceOf(address(0xA)) == HELD && escrow.balanceOf(address(0xC)) == 0);
            assert(!escrow.isSettled(MARKET, 0, 0));
        }
        uint256 credit = escrow.balanceOf(address(0xA)) + escrow.balanceOf(address(0xB)) + escrow.balanceOf(address(0xC));
        assert(credit == escrow.totalSupply());
        assert(escrow.balanceOf(address(escrow)) == 0);
        assert(escrow.totalSupply() + escrow.guarantee() == 2 * HELD + FUND);
        assert(escrow.guarantee() + escrow.debtOf(address(0xA)) + escrow.debtOf(address(0xB)) == FUND);
    }

}
