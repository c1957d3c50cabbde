// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {BackedCredit} from "../src/BackedCredit.sol";
import {Guarantee} from "../src/Guarantee.sol";
import {MarketEscrow} from "../src/MarketEscrow.sol";
import {MarketTimelock} from "../src/MarketTimelock.sol";
import {Positions} from "../src/Positions.sol";
import {SettlementLimits} from "../src/SettlementLimits.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {Stand} from "./Stand.sol";
import {vm, within} from "./Vm.sol";

contract EighteenDecimals is ERC20("Eighteen", "E18") {}

contract MarketEscrowTest is Stand {
    uint56 private constant POSITION_MAX = 50e6;
    uint56 private constant WINDOW_MAX = 100e6;
    uint56 private constant GUARANTEE_MAX = 70e6;
    uint256 private constant CREDIT = 60e6;

    function setUp() external {
        _begin(POSITION_MAX, WINDOW_MAX, GUARANTEE_MAX);
    }

    function test_StablecoinsWithOtherDecimalsAreRefused() external {
        IERC20Metadata other = new EighteenDecimals();
        vm.expectRevert(abi.encodeWithSelector(BackedCredit.UnsupportedDecimals.selector, 18));
        new MarketEscrow("X", "X", other, MarketEscrow.Delays(0, 0), address(this), address(this), address(this), 1, 1, 1, 1);
    }

    /// Any amount within the bounds, between any two accounts: credit moves, supply and backing stay.
    function testFuzz_SettlementConservesCredit(address debtor, address creditor, uint64 amount, uint64 sequence)
        external
    {
        if (debtor == address(0) || creditor == address(0) || debtor == creditor) return;
        if (debtor == address(escrow) || creditor == address(escrow)) return;
        amount = uint64(within(amount, 1, POSITION_MAX));
        escrow.depositFor(debtor, CREDIT);

        escrow.settle(MARKET, sequence, 0, 0, bytes.concat(_position(debtor, amount, true), _position(creditor, amount, false)));

        assert(escrow.balanceOf(debtor) == CREDIT - amount);
        assert(escrow.balanceOf(creditor) == amount);
        assert(escrow.balanceOf(address(escrow)) == 0);
        assert(escrow.totalSupply() == CREDIT && euro.balanceOf(address(escrow)) == CREDIT);
        assert(escrow.isSettled(MARKET, sequence, 0) && !escrow.isSettled(MARKET, sequence, 1));

        vm.expectRevert(abi.encodeWithSelector(MarketEscrow.AlreadySettled.selector, MARKET, sequence, 0));
        escrow.settle(MARKET, sequence, 0, 0, "");
    }

    /// Whatever bytes the settler sends: either they revert, or supply, backing and clearing account are as before.
    function testFuzz_ArbitraryPositionsNeverMakeOrLoseCredit(bytes calldata positions, uint64 sequence) external {
        escrow.depositFor(address(0xA), CREDIT);
        try escrow.settle(MARKET, sequence, 0, 0, positions) {
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
        escrow.settle(MARKET, 0, 0, 0, bytes.concat(_position(address(0xA), debit, true), _position(address(0xB), credit, false)));
    }

    function testFuzz_WithoutAGuaranteeNobodyOwesMoreThanItsCredit(uint64 credit, uint64 debit) external {
        credit = uint64(within(credit, 1, POSITION_MAX - 1));
        debit = uint64(within(debit, credit + 1, POSITION_MAX));
        escrow.depositFor(address(0xA), credit);
        vm.expectRevert(
            abi.encodeWithSelector(Guarantee.GuaranteeExhausted.selector, address(0xA), debit - credit, 0)
        );
        escrow.settle(MARKET, 0, 0, 0, bytes.concat(_position(address(0xA), debit, true), _position(address(0xB), debit, false)));
    }

    function testFuzz_APositionOwesAtMostItsBound(uint64 debit) external {
        debit = uint64(within(debit, uint256(POSITION_MAX) + 1, uint64(type(int64).max)));
        escrow.depositFor(address(0xA), debit);
        vm.expectRevert(
            abi.encodeWithSelector(
                SettlementLimits.PositionBeyondLimit.selector, address(0xA), uint256(debit), uint256(POSITION_MAX)
            )
        );
        escrow.settle(MARKET, 0, 0, 0, bytes.concat(_position(address(0xA), debit, true), _position(address(0xB), debit, false)));
    }

    /// The most negative int64 has no positive counterpart in an int64, and is refused like any debit beyond the bound.
    function test_TheMostNegativeAmountIsRefused() external {
        vm.expectRevert(
            abi.encodeWithSelector(
                SettlementLimits.PositionBeyondLimit.selector, address(0xA), uint256(1) << 63, uint256(POSITION_MAX)
            )
        );
        escrow.settle(MARKET, 0, 0, 0, abi.encodePacked(address(0xA), type(int64).min));
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

    // Who may do what

    function test_OnlyItsRolesMayActAndEachRefusalNamesTheRole() external {
        bytes32 admin = escrow.DEFAULT_ADMIN_ROLE();
        bytes32 settler = escrow.SETTLER_ROLE();
        bytes32 pauser = escrow.PAUSER_ROLE();
        _refusesStranger(settler);
        escrow.settle(MARKET, 0, 0, 0, "");
        _refusesStranger(pauser);
        escrow.pause();
        _refusesStranger(pauser);
        escrow.unpause();
        _refusesStranger(admin);
        escrow.setLimits(1, 1, 1, 1);
        _refusesStranger(admin);
        escrow.withdrawGuarantee(address(0xBAD), 1);
        _refusesStranger(admin);
        escrow.grantRole(settler, address(0xBAD));
    }

    function test_TheTimelockIsTheOnlyAdminAndLetsTheDelayPass() external {
        MarketTimelock timelock = new MarketTimelock(2 days, address(this));
        MarketEscrow bound = _escrowOf(address(timelock), POSITION_MAX, WINDOW_MAX, GUARANTEE_MAX);
        bytes memory change = abi.encodeCall(MarketEscrow.setLimits, (1e6, 2e6, 3e6, 1 hours));
        bytes memory notAdmin = abi.encodeWithSelector(
            IAccessControl.AccessControlUnauthorizedAccount.selector, address(this), bound.DEFAULT_ADMIN_ROLE()
        );
        vm.expectRevert(notAdmin);
        bound.setLimits(1e6, 2e6, 3e6, 1 hours);

        timelock.schedule(address(bound), 0, change, 0, 0, 2 days);
        vm.warp(block.timestamp + 2 days - 1);
        try timelock.execute(address(bound), 0, change, 0, 0) {
            assert(false);
        } catch {}
        vm.warp(block.timestamp + 1);
        timelock.execute(address(bound), 0, change, 0, 0);
        assert(bound.limits().positionDebitMax == 1e6);
        (uint56 guaranteeMax,,) = bound.guaranteeLimit();
        assert(guaranteeMax == 3e6);
        assert(!timelock.hasRole(timelock.DEFAULT_ADMIN_ROLE(), address(this)));
    }

    function test_CreditMovesBySettlementOnly() external {
        bytes memory refused = abi.encodeWithSelector(BackedCredit.CreditNotTransferable.selector);
        vm.expectRevert(refused);
        escrow.transfer(address(0xB), 1);
        vm.expectRevert(refused);
        escrow.transferFrom(address(0xA), address(0xB), 1);
        vm.expectRevert(refused);
        escrow.approve(address(0xB), 1);
        assert(escrow.decimals() == 6);
    }

    function test_NothingIsDepositedForNobodyOrTheClearingAccountOrWhilePaused() external {
        vm.expectRevert(abi.encodeWithSelector(BackedCredit.ZeroAmount.selector));
        escrow.depositFor(address(0xA), 0);
        vm.expectRevert(abi.encodeWithSelector(BackedCredit.ZeroAmount.selector));
        escrow.announceWithdrawal(0);
        vm.expectRevert(abi.encodeWithSelector(BackedCredit.ZeroAmount.selector));
        escrow.depositGuarantee(0);
        vm.expectRevert(abi.encodeWithSelector(BackedCredit.ClearingAccountRefused.selector));
        escrow.depositFor(address(escrow), 1);
        escrow.pause();
        bytes memory paused = abi.encodeWithSelector(Pausable.EnforcedPause.selector);
        vm.expectRevert(paused);
        escrow.depositFor(address(0xA), 1);
        vm.expectRevert(paused);
        escrow.depositWithPermit(address(0xA), 1, 0, 0, 0, 0);
        vm.expectRevert(paused);
        escrow.settle(MARKET, 0, 0, 0, "");
        escrow.unpause();
        // A permit that is none leaves it to the allowance.
        vm.expectRevert(
            abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(escrow), 0, 1)
        );
        escrow.depositWithPermit(address(0xA), 1, 0, 0, 0, 0);
    }

    // Form of a batch

    function test_PositionsAreWholeInOrderAndNotTheClearingAccounts() external {
        escrow.depositFor(address(0xA), CREDIT);
        escrow.depositFor(address(0xB), CREDIT);
        _refuses(abi.encodeWithSelector(Positions.MalformedPositions.selector, 27), new bytes(27));
        _refuses(
            abi.encodeWithSelector(MarketEscrow.TooManyPositions.selector, 1501, 1500), new bytes(28 * 1501)
        );
        bytes memory a = _position(address(0xA), 1, true);
        bytes memory b = _position(address(0xB), 1, true);
        bytes memory c = _position(address(0xC), 1, false);
        bytes memory d = _position(address(0xD), 1, false);
        bytes memory second = abi.encodeWithSelector(MarketEscrow.PositionOutOfOrder.selector, 1);
        bytes memory third = abi.encodeWithSelector(MarketEscrow.PositionOutOfOrder.selector, 2);
        _refuses(second, bytes.concat(b, a));
        _refuses(second, bytes.concat(a, a));
        _refuses(third, bytes.concat(a, d, c));
        _refuses(third, bytes.concat(a, c, b));
        _refuses(second, bytes.concat(a, _position(address(0xC), 0, false)));
        _refuses(
            abi.encodeWithSelector(MarketEscrow.PositionOutOfOrder.selector, 0), _position(address(0), 1, true)
        );
        bytes memory clearing = abi.encodeWithSelector(BackedCredit.ClearingAccountRefused.selector);
        _refuses(clearing, _position(address(escrow), 1, true));
        _refuses(clearing, bytes.concat(a, _position(address(escrow), 1, false)));
    }

    function test_AWindowMovesAtMostItsBoundAndTheNextOneStartsAnew() external {
        escrow.setLimits(POSITION_MAX, 10, 0, 1 days);
        escrow.depositFor(address(0xA), CREDIT);
        bytes memory six = bytes.concat(_position(address(0xA), 6, true), _position(address(0xB), 6, false));
        escrow.settle(MARKET, 0, 0, 0, six);
        assert(escrow.limits().windowDebit == 6);
        vm.expectRevert(abi.encodeWithSelector(SettlementLimits.WindowBeyondLimit.selector, 12, 10));
        escrow.settle(MARKET, 1, 0, 0, six);
        vm.warp(block.timestamp + 1 days);
        escrow.settle(MARKET, 1, 0, 0, six);
        vm.expectRevert(abi.encodeWithSelector(SettlementLimits.EmptyWindow.selector));
        escrow.setLimits(1, 1, 1, 0);
    }

    function testFuzz_EachMarketSequenceAndChunkIsSettledOnce(
        bytes32[3] calldata markets,
        uint64[3] calldata sequences,
        uint32[3] calldata chunks
    ) external {
        for (uint256 i = 0; i < 3; ++i) {
            bool before = escrow.isSettled(markets[i], sequences[i], chunks[i]);
            bool repeated = false;
            for (uint256 j = 0; j < i; ++j) {
                if (markets[i] == markets[j] && sequences[i] == sequences[j] && chunks[i] == chunks[j]) repeated = true;
            }
            assert(before == repeated);
            if (repeated) {
                vm.expectRevert(
                    abi.encodeWithSelector(MarketEscrow.AlreadySettled.selector, markets[i], sequences[i], chunks[i])
                );
            }
            escrow.settle(markets[i], sequences[i], chunks[i], 0, "");
            assert(escrow.isSettled(markets[i], sequences[i], chunks[i]));
        }
    }

    // Shortfalls

    /// First what the debtor wanted to withdraw, then the guarantee, then nothing goes.
    function testFuzz_AShortfallIsCoveredInOrder(uint64 held, uint64 pending, uint64 fund, uint64 owed) external {
        held = uint64(within(held, 0, 10e6));
        pending = uint64(within(pending, 0, 10e6));
        fund = uint64(within(fund, 0, 10e6));
        owed = uint64(within(owed, 1, 40e6));
        address debtor = address(0xA);
        _give(debtor, held, pending, fund);
        bytes memory positions = bytes.concat(_position(debtor, owed, true), _position(address(0xB), owed, false));

        uint256 missing = owed > held ? owed - held : 0;
        uint256 drawn = missing < pending ? missing : pending;
        if (missing - drawn > fund) {
            vm.expectRevert(
                abi.encodeWithSelector(Guarantee.GuaranteeExhausted.selector, debtor, missing - drawn, fund)
            );
            escrow.settle(MARKET, 0, 0, 0, positions);
            assert(!escrow.isSettled(MARKET, 0, 0));
            return;
        }
        escrow.settle(MARKET, 0, 0, 0, positions);
        assert(escrow.balanceOf(address(0xB)) == owed);
        assert(escrow.balanceOf(debtor) == held + missing - owed);
        assert(escrow.pendingWithdrawal(debtor).amount == pending - drawn);
        assert(escrow.debtOf(debtor) == missing - drawn);
        assert(escrow.isBarred(debtor) == (missing > drawn));
        assert(escrow.guarantee() == fund - (missing - drawn));
        assert(escrow.totalSupply() + escrow.pendingTotal() + escrow.guarantee() == euro.balanceOf(address(escrow)));
    }

    function test_WhatIsDueIsFreeOfLaterShortfalls() external {
        address debtor = address(0xA);
        _give(debtor, 0, 5e6, 9e6);
        vm.warp(block.timestamp + DELAY);
        escrow.settle(
            MARKET, 0, 0, 0, bytes.concat(_position(debtor, 3e6, true), _position(address(0xB), 3e6, false))
        );
        assert(escrow.pendingWithdrawal(debtor).amount == 5e6 && escrow.debtOf(debtor) == 3e6);
        escrow.withdraw(debtor);
        assert(euro.balanceOf(debtor) == 5e6);
    }

    function test_OnePoorAccountDoesNotHoldUpTheOthers() external {
        _give(address(0xA), 1e6, 0, 9e6);
        escrow.depositFor(address(0xB), 5e6);
        escrow.settle(
            MARKET,
            0,
            0,
            0,
            bytes.concat(
                _position(address(0xA), 2e6, true), _position(address(0xB), 2e6, true), _position(address(0xC), 4e6, false)
            )
        );
        assert(escrow.balanceOf(address(0xC)) == 4e6 && escrow.balanceOf(address(0xB)) == 3e6);
        assert(escrow.isBarred(address(0xA)) && !escrow.isBarred(address(0xB)));
    }

    /// However a settler splits what it takes: a window draws at most its share, and the next one starts anew.
    function testFuzz_AWindowDrawsAtMostItsShareOfTheGuarantee(uint64 first, uint64 second) external {
        first = uint64(within(first, 1, 20e6));
        second = uint64(within(second, 1, 20e6));
        escrow.setLimits(POSITION_MAX, WINDOW_MAX, 20e6, 1 days);
        escrow.depositGuarantee(60e6);
        _overdraw(0, first);
        (, uint32 window, uint56 drawn) = escrow.guaranteeLimit();
        assert(window == block.timestamp / 1 days && drawn == first);

        if (first + second > 20e6) {
            vm.expectRevert(
                abi.encodeWithSelector(SettlementLimits.GuaranteeBeyondLimit.selector, first + second, 20e6)
            );
            _overdraw(1, second);
            assert(escrow.guarantee() == 60e6 - first && !escrow.isSettled(MARKET, 1, 0));
            vm.warp(block.timestamp + 1 days);
        }
        _overdraw(1, second);
        assert(escrow.guarantee() == 60e6 - first - second);
    }

    function testFuzz_DebtIsRepaidBeforeAnythingElse(uint64 owed, uint64 repaid) external {
        owed = uint64(within(owed, 1, 10e6));
        repaid = uint64(within(repaid, 1, 20e6));
        address debtor = address(0xA);
        _give(debtor, 0, 0, 10e6);
        escrow.settle(MARKET, 0, 0, 0, bytes.concat(_position(debtor, owed, true), _position(address(0xB), owed, false)));
        escrow.depositFor(debtor, repaid);
        uint256 collected = repaid < owed ? repaid : owed;
        assert(escrow.debtOf(debtor) == owed - collected);
        assert(escrow.balanceOf(debtor) == repaid - collected);
        assert(escrow.guarantee() == 10e6 - owed + collected);
        // What settlement brings is collected before it can be announced.
        escrow.settle(
            MARKET, 1, 0, 0, bytes.concat(_position(address(0xB), 1, true), _position(debtor, 1, false))
        );
        uint256 held = escrow.balanceOf(debtor);
        uint256 debt = escrow.debtOf(debtor);
        if (debt > 0) {
            vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InsufficientBalance.selector, debtor, 0, held));
            vm.prank(debtor);
            escrow.announceWithdrawal(held);
            escrow.collectDebt(debtor);
            assert(escrow.debtOf(debtor) == debt - 1 && escrow.balanceOf(debtor) == 0);
        } else {
            vm.prank(debtor);
            escrow.announceWithdrawal(held);
        }
    }

    function test_TheGuaranteeIsPaidBackByTheAdminUpToWhatItHas() external {
        _give(address(0xA), 0, 0, 5e6);
        vm.expectRevert(abi.encodeWithSelector(Guarantee.GuaranteeInsufficient.selector, 5e6, 5e6 + 1));
        escrow.withdrawGuarantee(address(0xF), 5e6 + 1);
        escrow.withdrawGuarantee(address(0xF), 5e6);
        assert(euro.balanceOf(address(0xF)) == 5e6 && escrow.guarantee() == 0);
    }

    // Withdrawals

    function test_AFurtherAnnouncementPaysWhatIsDueAndMakesTheRestWait() external {
        address holder = address(0xA);
        _give(holder, 10e6, 2e6, 0);
        vm.warp(block.timestamp + DELAY - 1);
        vm.prank(holder);
        escrow.announceWithdrawal(1e6);
        assert(escrow.pendingWithdrawal(holder).amount == 3e6 && euro.balanceOf(holder) == 0);
        vm.warp(block.timestamp + DELAY);
        vm.prank(holder);
        escrow.announceWithdrawal(4e6);
        assert(escrow.pendingWithdrawal(holder).amount == 4e6 && euro.balanceOf(holder) == 3e6);
        assert(escrow.pendingTotal() == 4e6);
    }

    /// Credit, what was announced from more credit, and the guarantee.
    /// Somebody without credit owes `amount`: all of it is the guarantee's.
    function _overdraw(uint64 sequence, uint64 amount) private {
        escrow.settle(
            MARKET,
            sequence,
            0,
            0,
            bytes.concat(_position(address(0xA), amount, true), _position(address(0xB), amount, false))
        );
    }

    function _give(address account, uint256 held, uint256 pending, uint256 fund) private {
        if (held + pending > 0) escrow.depositFor(account, held + pending);
        if (pending > 0) {
            vm.prank(account);
            escrow.announceWithdrawal(pending);
        }
        if (fund > 0) escrow.depositGuarantee(fund);
    }

    function _refusesStranger(bytes32 role) private {
        vm.expectRevert(
            abi.encodeWithSelector(IAccessControl.AccessControlUnauthorizedAccount.selector, address(0xBAD), role)
        );
        vm.prank(address(0xBAD));
    }

    function _refuses(bytes memory reason, bytes memory positions) private {
        vm.expectRevert(reason);
        escrow.settle(MARKET, 0, 0, 0, positions);
    }

    function _position(address account, uint64 amount, bool debit) private pure returns (bytes memory) {
        return abi.encodePacked(account, debit ? -int64(amount) : int64(amount));
    }
}
