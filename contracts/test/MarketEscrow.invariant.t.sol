// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DemoEuro} from "../src/DemoEuro.sol";
import {MarketEscrow} from "../src/MarketEscrow.sol";
import {vm, within} from "./Vm.sol";

/// @notice Does what members, settler and pauser can do, in any order. Whatever is called must succeed: amounts are
/// brought into what is allowed, and a refusal would show as a failure.
contract Members {
    uint64 public constant DELAY = 1 hours;
    uint256 public constant COUNT = 5;
    bytes32 public constant MARKET = keccak256("test");

    DemoEuro public immutable euro;
    MarketEscrow public immutable escrow;
    uint64 public sequence;

    /// Deposits less withdrawals paid, µEUR.
    uint256 public inside;

    constructor() {
        euro = new DemoEuro(address(this));
        escrow = new MarketEscrow(
            "Test",
            "T",
            euro,
            DELAY,
            address(this),
            address(this),
            address(this),
            type(uint64).max,
            type(uint64).max,
            1 days
        );
        euro.mint(address(this), 1e24);
        euro.approve(address(escrow), 1e24);
    }

    function member(uint256 index) public pure returns (address) {
        return address(uint160(0xA000 + index % COUNT));
    }

    function deposit(uint256 who, uint256 amount) external {
        if (escrow.paused()) escrow.unpause();
        amount = within(amount, 1, 1e9);
        escrow.depositFor(member(who), amount);
        inside += amount;
    }

    /// From the first of two neighbours and a third to the second and a fourth, with an odd split.
    function settle(uint256 who, uint256 amount) external {
        if (escrow.paused()) escrow.unpause();
        uint256 first = who % (COUNT - 1);
        address debtor = member(first);
        uint256 credit = escrow.balanceOf(debtor);
        if (credit == 0) return;
        uint64 debit = uint64(within(amount, 1, credit));
        uint64 part = uint64(amount % debit);
        bytes memory positions = abi.encodePacked(debtor, -int64(debit));
        // Credits by ascending account: the debtor itself may come first and get a part back.
        if (part > 0) positions = abi.encodePacked(positions, debtor, int64(part));
        positions = abi.encodePacked(positions, member(first + 1), int64(debit - part));
        escrow.settle(MARKET, sequence++, 0, positions);
    }

    function announce(uint256 who, uint256 amount) external {
        uint256 credit = escrow.balanceOf(member(who));
        if (credit == 0) return;
        vm.prank(member(who));
        escrow.announceWithdrawal(within(amount, 1, credit));
    }

    /// Whoever announced is paid when due, paused or not.
    function withdraw(uint256 who) external {
        address account = member(who);
        MarketEscrow.Withdrawal memory pending = escrow.pendingWithdrawal(account);
        if (pending.amount == 0) return;
        if (block.timestamp < pending.dueAt) vm.warp(pending.dueAt);
        uint256 before = euro.balanceOf(account);
        escrow.withdraw(account);
        assert(euro.balanceOf(account) == before + pending.amount);
        inside -= pending.amount;
    }

    function pause() external {
        if (!escrow.paused()) escrow.pause();
    }

    function pass(uint32 time) external {
        vm.warp(block.timestamp + time % 2 days);
    }
}

contract MarketEscrowInvariants {
    Members private members;
    MarketEscrow private escrow;

    function setUp() external {
        vm.warp(1_700_000_000);
        members = new Members();
        escrow = members.escrow();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(members);
    }

    function invariant_CreditAndPendingWithdrawalsAreBacked() external view {
        assert(members.euro().balanceOf(address(escrow)) == members.inside());
        assert(escrow.totalSupply() + escrow.pendingTotal() == members.inside());
    }

    function invariant_BalancesAndPendingWithdrawalsAddUp() external view {
        uint256 balances = 0;
        uint256 pending = 0;
        for (uint256 i = 0; i < members.COUNT(); ++i) {
            balances += escrow.balanceOf(members.member(i));
            pending += escrow.pendingWithdrawal(members.member(i)).amount;
        }
        assert(balances == escrow.totalSupply());
        assert(pending == escrow.pendingTotal());
    }

    function invariant_TheClearingAccountHoldsNothing() external view {
        assert(escrow.balanceOf(address(escrow)) == 0);
    }

    function invariant_EachSequenceIsSettledOnce() external view {
        uint64 next = members.sequence();
        assert(!escrow.isSettled(members.MARKET(), next));
        assert(next == 0 || escrow.isSettled(members.MARKET(), next - 1));
    }
}
