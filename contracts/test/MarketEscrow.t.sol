// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {BackedCredit} from "../src/BackedCredit.sol";
import {DemoEuro} from "../src/DemoEuro.sol";
import {MarketEscrow} from "../src/MarketEscrow.sol";
import {SettlementLimits} from "../src/SettlementLimits.sol";
import {vm, within} from "./Vm.sol";

contract EighteenDecimals is ERC20("Eighteen", "E18") {}

contract MarketEscrowTest {
    bytes32 private constant MARKET = keccak256("test");
    uint64 private constant DELAY = 1 hours;
    uint64 private constant POSITION_MAX = 50e6;
    uint64 private constant WINDOW_MAX = 100e6;
    uint256 private constant CREDIT = 60e6;

    DemoEuro private euro;
    MarketEscrow private escrow;

    function setUp() external {
        vm.warp(1_700_000_000);
        euro = new DemoEuro(address(this));
        escrow = new MarketEscrow(
            "Test", "T", euro, DELAY, address(this), address(this), address(this), POSITION_MAX, WINDOW_MAX, 1 days
        );
        euro.mint(address(this), 1e24);
        euro.approve(address(escrow), 1e24);
    }

    function test_StablecoinsWithOtherDecimalsAreRefused() external {
        IERC20Metadata other = new EighteenDecimals();
        vm.expectRevert(abi.encodeWithSelector(BackedCredit.UnsupportedDecimals.selector, 18));
        new MarketEscrow("X", "X", other, 0, address(this), address(this), address(this), 1, 1, 1);
    }

    /// Any amount within the bounds, between any two accounts: credit moves, supply and backing stay.
    function testFuzz_SettlementConservesCredit(address debtor, address creditor, uint64 amount, uint64 sequence)
        external
    {
        if (debtor == address(0) || creditor == address(0) || debtor == creditor) return;
        if (debtor == address(escrow) || creditor == address(escrow)) return;
        amount = uint64(within(amount, 1, POSITION_MAX));
        escrow.depositFor(debtor, CREDIT);

        escrow.settle(MARKET, sequence, 0, bytes.concat(_position(debtor, amount, true), _position(creditor, amount, false)));

        assert(escrow.balanceOf(debtor) == CREDIT - amount);
        assert(escrow.balanceOf(creditor) == amount);
        assert(escrow.balanceOf(address(escrow)) == 0);
        assert(escrow.totalSupply() == CREDIT && euro.balanceOf(address(escrow)) == CREDIT);
        assert(escrow.isSettled(MARKET, sequence));

        vm.expectRevert(abi.encodeWithSelector(MarketEscrow.AlreadySettled.selector, MARKET, sequence));
        escrow.settle(MARKET, sequence, 0, "");
    }

    /// Whatever bytes the settler sends: either they revert, or supply, backing and clearing account are as before.
    function testFuzz_ArbitraryPositionsNeverMakeOrLoseCredit(bytes calldata positions, uint64 sequence) external {
        escrow.depositFor(address(0xA), CREDIT);
        try escrow.settle(MARKET, sequence, 0, positions) {
            assert(positions.length == 0);
        } catch {}
        assert(escrow.totalSupply() == CREDIT);
        assert(escrow.balanceOf(address(0xA)) == CREDIT);
        assert(escrow.balanceOf(address(escrow)) == 0);
    }

    function testFuzz_DebitsAndCreditsMustBeEqual(uint64 debit, uint64 credit) external {
        debit = uint64(within(debit, 1, POSITION_MAX));
        credit = uint64(within(credit, 1, uint64(type(int64).max)));
        if (debit == credit) return;
        escrow.depositFor(address(0xA), CREDIT);
        vm.expectRevert(abi.encodeWithSelector(MarketEscrow.UnbalancedPositions.selector, debit, credit));
        escrow.settle(MARKET, 0, 0, bytes.concat(_position(address(0xA), debit, true), _position(address(0xB), credit, false)));
    }

    function testFuzz_NobodyOwesMoreThanItsCredit(uint64 credit, uint64 debit) external {
        credit = uint64(within(credit, 1, POSITION_MAX - 1));
        debit = uint64(within(debit, credit + 1, POSITION_MAX));
        escrow.depositFor(address(0xA), credit);
        vm.expectRevert(
            abi.encodeWithSelector(IERC20Errors.ERC20InsufficientBalance.selector, address(0xA), credit, debit)
        );
        escrow.settle(MARKET, 0, 0, bytes.concat(_position(address(0xA), debit, true), _position(address(0xB), debit, false)));
    }

    function testFuzz_APositionOwesAtMostItsBound(uint64 debit) external {
        debit = uint64(within(debit, uint256(POSITION_MAX) + 1, uint64(type(int64).max)));
        escrow.depositFor(address(0xA), debit);
        vm.expectRevert(
            abi.encodeWithSelector(
                SettlementLimits.PositionBeyondLimit.selector, address(0xA), uint256(debit), uint256(POSITION_MAX)
            )
        );
        escrow.settle(MARKET, 0, 0, bytes.concat(_position(address(0xA), debit, true), _position(address(0xB), debit, false)));
    }

    /// The most negative int64 has no positive counterpart in an int64, and is refused like any debit beyond the bound.
    function test_TheMostNegativeAmountIsRefused() external {
        vm.expectRevert(
            abi.encodeWithSelector(
                SettlementLimits.PositionBeyondLimit.selector, address(0xA), uint256(1) << 63, uint256(POSITION_MAX)
            )
        );
        escrow.settle(MARKET, 0, 0, abi.encodePacked(address(0xA), type(int64).min));
    }

    /// Full batches fit into a transaction (2^24 gas).
    function test_AFullBatchOfWarmAccountsFitsIntoATransaction() external {
        escrow.setLimits(POSITION_MAX, type(uint64).max, 1 days);
        uint256 half = escrow.POSITIONS_MAX() / 2;
        bytes memory debits = "";
        bytes memory credits = "";
        for (uint256 i = 0; i < half; ++i) {
            address debtor = address(uint160(0x1000 + i));
            address creditor = address(uint160(0x9000 + i));
            escrow.depositFor(debtor, 2);
            escrow.depositFor(creditor, 2);
            debits = bytes.concat(debits, _position(debtor, 1, true));
            credits = bytes.concat(credits, _position(creditor, 1, false));
        }
        bytes memory positions = bytes.concat(debits, credits);
        // Calldata of 28 bytes a position costs at most 16 gas a byte.
        uint256 intrinsic = 21_000 + positions.length * 16;
        uint256 before = gasleft();
        escrow.settle(MARKET, 0, 0, positions);
        assert(before - gasleft() + intrinsic < 2 ** 24);
    }

    function testFuzz_AWithdrawalIsDueAfterTheDelayAndNotBefore(uint64 amount, uint64 wait, bool paused) external {
        amount = uint64(within(amount, 1, CREDIT));
        wait = uint64(within(wait, 0, 2 * DELAY));
        address holder = address(0xA);
        escrow.depositFor(holder, CREDIT);
        vm.prank(holder);
        escrow.announceWithdrawal(amount);
        assert(escrow.balanceOf(holder) == CREDIT - amount);
        assert(escrow.totalSupply() + escrow.pendingTotal() == CREDIT);

        if (paused) escrow.pause();
        uint256 dueAt = block.timestamp + DELAY;
        vm.warp(block.timestamp + wait);
        if (wait < DELAY) {
            vm.expectRevert(abi.encodeWithSelector(BackedCredit.WithdrawalNotDue.selector, holder, dueAt));
            escrow.withdraw(holder);
        } else {
            escrow.withdraw(holder);
            assert(euro.balanceOf(holder) == amount);
            assert(escrow.pendingTotal() == 0);
        }
    }

    function _position(address account, uint64 amount, bool debit) private pure returns (bytes memory) {
        return abi.encodePacked(account, debit ? -int64(amount) : int64(amount));
    }
}
