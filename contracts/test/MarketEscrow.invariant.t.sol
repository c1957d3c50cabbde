// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {DemoEuro} from "../src/DemoEuro.sol";
import {MarketEscrow} from "../src/MarketEscrow.sol";
import {Succession} from "../src/Succession.sol";
import {Words} from "./Words.sol";
import {vm, within} from "./Vm.sol";

/// @notice Does what members, settler and pauser can do, in any order. Whatever is called must succeed: amounts are
/// brought into what is allowed, and a refusal would show as a failure.
contract Members {
    uint64 public constant DELAY = 1 hours;
    uint64 public constant RECOVERY = 1 days;
    uint256 public constant COUNT = 5;
    uint256 public constant SUCCESSORS_MAX = 12;
    bytes32 public constant MARKET = keccak256("test");

    DemoEuro public immutable euro;
    MarketEscrow public immutable escrow;
    uint64 public sequence;

    /// Deposits, also into the guarantee, less withdrawals paid, µEUR.
    uint256 public inside;

    /// What was put into the guarantee less what was taken out of it, µEUR.
    uint256 public fund;

    /// Chunks that were settled.
    uint256 public settled;

    /// The members by ascending account, then the wallets that took the place of some, in order.
    address[] public accounts;

    /// The wallet that is a member's now.
    mapping(uint256 member => address) public walletOf;

    mapping(address account => uint256) private _keys;

    constructor() {
        euro = new DemoEuro(address(this));
        escrow = new MarketEscrow(
            "Test",
            "T",
            euro,
            MarketEscrow.Delays(DELAY, RECOVERY),
            address(this),
            address(this),
            address(this),
            type(uint56).max,
            type(uint56).max,
            type(uint56).max,
            1 days
        );
        euro.mint(address(this), 1e24);
        euro.approve(address(escrow), 1e24);
        for (uint256 i = 0; i < COUNT; ++i) {
            uint256 place = accounts.length;
            accounts.push(_newAccount());
            for (; place > 0 && accounts[place - 1] > accounts[place]; --place) {
                (accounts[place - 1], accounts[place]) = (accounts[place], accounts[place - 1]);
            }
        }
        for (uint256 i = 0; i < COUNT; ++i) {
            walletOf[i] = accounts[i];
        }
    }

    /// The wallet that a member began with: batches and deposits still name it when another one has its place.
    function member(uint256 index) public view returns (address) {
        return accounts[index % COUNT];
    }

    function count() external view returns (uint256) {
        return accounts.length;
    }

    function handOver(uint256 who) external {
        if (accounts.length == COUNT + SUCCESSORS_MAX) return;
        address owner = walletOf[who % COUNT];
        address successor = _newWallet(who);
        Succession.Word memory word = Words.about(escrow, owner, successor, owner);
        escrow.handOver(
            word,
            Words.sign(escrow, Words.SUCCESSION, _keys[owner], word),
            Words.sign(escrow, Words.SUCCESSION, _keys[successor], word)
        );
        inside -= euro.balanceOf(successor);
    }

    /// Announced by recovery address or admin, vetoed or accepted.
    function recover(uint256 who, bool byAdmin, bool vetoed) external {
        if (accounts.length == COUNT + SUCCESSORS_MAX) return;
        address owner = walletOf[who % COUNT];
        address successor = vm.addr(_key(accounts.length + 1));
        _keys[successor] = _key(accounts.length + 1);
        if (byAdmin) {
            escrow.proposeSuccession(owner, successor);
        } else {
            address recovery = vm.addr(7);
            Succession.Word memory name = Words.about(escrow, owner, recovery, owner);
            escrow.nameRecovery(name, Words.sign(escrow, Words.RECOVERY, _keys[owner], name));
            Succession.Word memory said = Words.about(escrow, owner, successor, recovery);
            escrow.announceSuccession(said, Words.sign(escrow, Words.SUCCESSION, 7, said));
        }
        if (vetoed) {
            Succession.Word memory veto = Words.about(escrow, owner, successor, owner);
            escrow.vetoSuccession(veto, Words.sign(escrow, Words.VETO, _keys[owner], veto));
        }
        vm.warp(block.timestamp + RECOVERY);
        Succession.Word memory word = Words.about(escrow, owner, successor, successor);
        bytes memory signature = Words.sign(escrow, Words.SUCCESSION, _keys[successor], word);
        try escrow.acceptSuccession(word, signature) {
            assert(!vetoed);
            _newWallet(who);
            inside -= euro.balanceOf(successor);
        } catch {
            assert(vetoed);
        }
    }

    function follow(uint256 who) external {
        address account = accounts[who % accounts.length];
        bool possible = escrow.currentWallet(account) != account;
        address successor = escrow.currentWallet(account);
        uint256 before = euro.balanceOf(successor);
        try escrow.follow(account) {
            assert(possible);
            inside -= euro.balanceOf(successor) - before;
        } catch {
            assert(!possible);
        }
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
        escrow.settle(MARKET, sequence++, 0, 0, positions);
        ++settled;
    }

    /// A debtor that owes more than it has, within what its pending withdrawal and the guarantee have.
    function overdraw(uint256 who, uint256 amount) external {
        if (escrow.paused()) escrow.unpause();
        address debtor = member(who % (COUNT - 1));
        uint256 missing = within(amount, 0, escrow.guarantee());
        uint64 debit = uint64(escrow.balanceOf(debtor) + missing);
        if (debit == 0) return;
        escrow.settle(
            MARKET,
            sequence++,
            uint32(amount % 3),
            0,
            abi.encodePacked(debtor, -int64(debit), member(who % (COUNT - 1) + 1), int64(debit))
        );
        ++settled;
    }

    /// A sequence that was settled is refused, whatever its positions.
    function repeat(uint64 earlier) external {
        if (escrow.paused()) escrow.unpause();
        if (sequence == 0) return;
        earlier %= sequence;
        for (uint32 chunk = 0; chunk < 3; ++chunk) {
            if (!escrow.isSettled(MARKET, earlier, chunk)) continue;
            try escrow.settle(MARKET, earlier, chunk, 0, "") {
                assert(false);
            } catch {}
        }
    }

    function guarantee(uint256 amount) external {
        amount = within(amount, 1, 1e8);
        escrow.depositGuarantee(amount);
        inside += amount;
        fund += amount;
    }

    function takeBack(uint256 amount) external {
        amount = within(amount, 0, escrow.guarantee());
        escrow.withdrawGuarantee(address(0xF), amount);
        inside -= amount;
        fund -= amount;
    }

    function collect(uint256 who) external {
        escrow.collectDebt(walletOf[who % COUNT]);
    }

    function announce(uint256 who, uint256 amount) external {
        address account = walletOf[who % COUNT];
        escrow.collectDebt(account);
        uint256 credit = escrow.balanceOf(account);
        if (credit == 0) return;
        uint256 before = euro.balanceOf(account);
        vm.prank(account);
        escrow.announceWithdrawal(within(amount, 1, credit));
        // What was due before is paid on the way.
        inside -= euro.balanceOf(account) - before;
    }

    /// Whoever announced is paid when due, paused or not.
    function withdraw(uint256 who) external {
        address account = walletOf[who % COUNT];
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

    function _key(uint256 number) private pure returns (uint256) {
        return uint256(keccak256(abi.encode("wallet", number))) >> 8;
    }

    function _newAccount() private returns (address account) {
        uint256 key = _key(accounts.length + 1);
        account = vm.addr(key);
        _keys[account] = key;
    }

    function _newWallet(uint256 who) private returns (address wallet) {
        wallet = _newAccount();
        accounts.push(wallet);
        walletOf[who % COUNT] = wallet;
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
        assert(escrow.totalSupply() + escrow.pendingTotal() + escrow.guarantee() == members.inside());
    }

    function invariant_GuaranteeAndDebtsAddUp() external view {
        uint256 debts = 0;
        for (uint256 i = 0; i < members.count(); ++i) {
            debts += escrow.debtOf(members.accounts(i));
        }
        assert(escrow.guarantee() + debts == members.fund());
    }

    function invariant_BalancesAndPendingWithdrawalsAddUp() external view {
        uint256 balances = 0;
        uint256 pending = 0;
        for (uint256 i = 0; i < members.count(); ++i) {
            balances += escrow.balanceOf(members.accounts(i));
            pending += escrow.pendingWithdrawal(members.accounts(i)).amount;
        }
        assert(balances == escrow.totalSupply());
        assert(pending == escrow.pendingTotal());
    }

    /// A wallet that has a successor owes nothing and waits for nothing, and its line ends at the member's own wallet.
    function invariant_WalletsWithASuccessorHaveNoDebtAndNoWithdrawal() external view {
        for (uint256 i = 0; i < members.count(); ++i) {
            address account = members.accounts(i);
            if (escrow.currentWallet(account) == account) continue;
            assert(escrow.debtOf(account) == 0);
            assert(escrow.pendingWithdrawal(account).amount == 0);
        }
        for (uint256 i = 0; i < members.COUNT(); ++i) {
            assert(escrow.currentWallet(members.member(i)) == members.walletOf(i));
            assert(escrow.currentWallet(members.walletOf(i)) == members.walletOf(i));
        }
    }

    function invariant_TheClearingAccountHoldsNothing() external view {
        assert(escrow.balanceOf(address(escrow)) == 0);
    }

    function invariant_EachSequenceIsSettledOnce() external view {
        uint256 found = 0;
        for (uint64 sequence = 0; sequence <= members.sequence(); ++sequence) {
            for (uint32 chunk = 0; chunk < 3; ++chunk) {
                if (escrow.isSettled(members.MARKET(), sequence, chunk)) ++found;
            }
        }
        assert(found == members.settled());
    }

    /// Whatever happened before: after the delay everybody is paid what it announced, in any order.
    function invariant_EveryWithdrawalIsPaidWhenDue() external {
        vm.warp(block.timestamp + members.DELAY());
        for (uint256 i = 0; i < members.count(); ++i) {
            address account = members.accounts(i);
            uint256 pending = escrow.pendingWithdrawal(account).amount;
            if (pending == 0) continue;
            uint256 before = members.euro().balanceOf(account);
            escrow.withdraw(account);
            assert(members.euro().balanceOf(account) == before + pending);
        }
        assert(escrow.pendingTotal() == 0);
    }
}
