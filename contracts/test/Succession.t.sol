// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {FollowingCredit} from "../src/FollowingCredit.sol";
import {Guarantee} from "../src/Guarantee.sol";
import {MarketEscrow} from "../src/MarketEscrow.sol";
import {MarketTimelock} from "../src/MarketTimelock.sol";
import {MeterRegistry} from "../src/MeterRegistry.sol";
import {Succession} from "../src/Succession.sol";
import {Stand} from "./Stand.sol";
import {Words} from "./Words.sol";
import {Devices} from "./MeterRegistry.t.sol";
import {vm, within} from "./Vm.sol";

/// @notice An owner's wallet, its meters and its money go to another wallet: by itself, by recovery, by the admin.
contract SuccessionTest is Stand {
    uint256 private constant OLD_KEY = 0xA11CE;
    uint256 private constant NEW_KEY = 0xB0B;
    uint256 private constant RECOVERY_KEY = 0xCA7;
    uint256 private constant THIEF_KEY = 0xBAD;

    MeterRegistry private registry;
    address private old = vm.addr(OLD_KEY);
    address private fresh = vm.addr(NEW_KEY);
    address private recovery = vm.addr(RECOVERY_KEY);
    address private thief = vm.addr(THIEF_KEY);

    function setUp() external {
        _begin(1e12, 1e15, 1e12);
        registry = new MeterRegistry(address(this), address(this), escrow);
    }

    // Handing over

    function test_AnOwnerHandsOverAndItsMetersAndItsMoneyFollow() external {
        address meter = _bind(old);
        escrow.depositFor(old, 9e6);
        vm.prank(old);
        escrow.announceWithdrawal(4e6);
        uint256 dueAt = block.timestamp + DELAY;
        vm.warp(block.timestamp + 60);
        _handOver();
        assert(escrow.currentWallet(old) == fresh && escrow.currentWallet(fresh) == fresh);
        assert(escrow.balanceOf(old) == 0 && escrow.balanceOf(fresh) == 5e6);
        assert(escrow.pendingWithdrawal(old).amount == 0);
        assert(escrow.pendingWithdrawal(fresh).amount == 4e6 && escrow.pendingWithdrawal(fresh).dueAt == dueAt);
        assert(registry.meterOf(meter).owner == fresh);
        vm.expectRevert(abi.encodeWithSelector(MeterRegistry.NotMeterOwner.selector, meter, old));
        vm.prank(old);
        registry.revoke(meter);
        vm.prank(fresh);
        registry.revoke(meter);
    }

    function test_BothHaveToSignTheSameWordInTimeAndOnce() external {
        Succession.Word memory word = Words.about(escrow, old, fresh, old);
        bytes memory byOld = Words.sign(escrow, Words.SUCCESSION, OLD_KEY, word);
        bytes memory byNew = Words.sign(escrow, Words.SUCCESSION, NEW_KEY, word);
        bytes memory byThief = Words.sign(escrow, Words.SUCCESSION, THIEF_KEY, word);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotSignedBy.selector, old));
        escrow.handOver(word, byThief, byNew);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotSignedBy.selector, fresh));
        escrow.handOver(word, byOld, byThief);
        bytes memory veto = Words.sign(escrow, Words.VETO, OLD_KEY, word);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotSignedBy.selector, old));
        escrow.handOver(word, veto, byNew);
        vm.warp(block.timestamp + 1);
        vm.expectRevert(abi.encodeWithSelector(Succession.WordExpired.selector, old, block.timestamp - 1));
        escrow.handOver(word, byOld, byNew);
        vm.warp(block.timestamp - 1);
        escrow.handOver(word, byOld, byNew);
        vm.expectRevert(abi.encodeWithSelector(Nonces.InvalidAccountNonce.selector, old, 1));
        escrow.handOver(word, byOld, byNew);
    }

    function test_ASuccessorIsAWalletOfItsOwnAndLinesHaveNoFork() external {
        bytes memory notOne = abi.encodeWithSelector(Succession.NotASuccessor.selector, old, old);
        vm.expectRevert(notOne);
        escrow.proposeSuccession(old, old);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotASuccessor.selector, old, address(0)));
        escrow.proposeSuccession(old, address(0));
        vm.expectRevert(abi.encodeWithSelector(Succession.NotASuccessor.selector, address(0), fresh));
        escrow.proposeSuccession(address(0), fresh);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotASuccessor.selector, old, address(escrow)));
        escrow.proposeSuccession(old, address(escrow));
        _handOver();
        vm.expectRevert(abi.encodeWithSelector(Succession.AlreadySucceeded.selector, old, fresh));
        escrow.proposeSuccession(old, thief);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotASuccessor.selector, fresh, old));
        escrow.proposeSuccession(fresh, old);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotASuccessor.selector, thief, fresh));
        escrow.proposeSuccession(thief, fresh);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotASuccessor.selector, thief, old));
        escrow.proposeSuccession(thief, old);
        _pass(fresh, NEW_KEY, recovery, RECOVERY_KEY);
        assert(escrow.currentWallet(old) == recovery && escrow.currentWallet(fresh) == recovery);
    }

    // Recovery

    function test_ALostKeyIsRecoveredAfterTheDelay() external {
        escrow.depositFor(old, 9e6);
        _nameRecovery();
        _announce(fresh);
        uint256 dueAt = block.timestamp + RECOVERY;
        assert(escrow.announcementOf(old).successor == fresh && escrow.announcementOf(old).dueAt == dueAt);
        vm.warp(dueAt - 1);
        _acceptReverts(abi.encodeWithSelector(Succession.VetoStillPossible.selector, old, dueAt), fresh, NEW_KEY);
        vm.warp(dueAt);
        _acceptReverts(abi.encodeWithSelector(Succession.NotAnnounced.selector, old, thief), thief, THIEF_KEY);
        _acceptReverts(abi.encodeWithSelector(Succession.NotSignedBy.selector, fresh), fresh, RECOVERY_KEY);
        _accept(fresh, NEW_KEY);
        assert(escrow.balanceOf(fresh) == 9e6 && escrow.currentWallet(old) == fresh);
        assert(escrow.announcementOf(old).successor == address(0));
    }

    function test_AStolenRecoveryKeyIsVetoed() external {
        escrow.depositFor(old, 9e6);
        _nameRecovery();
        _announce(thief);
        Succession.Word memory word = Words.about(escrow, old, thief, old);
        bytes memory byThief = Words.sign(escrow, Words.VETO, THIEF_KEY, word);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotSignedBy.selector, old));
        escrow.vetoSuccession(word, byThief);
        escrow.vetoSuccession(word, Words.sign(escrow, Words.VETO, OLD_KEY, word));
        vm.warp(block.timestamp + RECOVERY);
        _acceptReverts(abi.encodeWithSelector(Succession.NotAnnounced.selector, old, thief), thief, THIEF_KEY);
        word = Words.about(escrow, old, thief, old);
        bytes memory again = Words.sign(escrow, Words.VETO, OLD_KEY, word);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotAnnounced.selector, old, thief));
        escrow.vetoSuccession(word, again);
        // The owner names another one, or none: then the stolen key announces nothing more.
        word = Words.about(escrow, old, address(0), old);
        escrow.nameRecovery(word, Words.sign(escrow, Words.RECOVERY, OLD_KEY, word));
        word = Words.about(escrow, old, thief, recovery);
        bytes memory stolen = Words.sign(escrow, Words.SUCCESSION, RECOVERY_KEY, word);
        vm.expectRevert(abi.encodeWithSelector(Succession.NoRecovery.selector, old));
        escrow.announceSuccession(word, stolen);
        assert(escrow.balanceOf(old) == 9e6);
    }

    function test_ALaterAnnouncementTakesThePlaceAndHasTheWholeDelay() external {
        _nameRecovery();
        _announce(thief);
        vm.warp(block.timestamp + RECOVERY - 1);
        _announce(fresh);
        vm.warp(block.timestamp + 1);
        _acceptReverts(abi.encodeWithSelector(Succession.NotAnnounced.selector, old, thief), thief, THIEF_KEY);
        _acceptReverts(
            abi.encodeWithSelector(Succession.VetoStillPossible.selector, old, block.timestamp + RECOVERY - 1),
            fresh,
            NEW_KEY
        );
        assert(escrow.announcementOf(old).successor == fresh);
    }

    /// Who replaces a stolen recovery address need not know what was done with it.
    function test_NamingAnotherRecoveryEndsWhatTheFormerOneAnnounced() external {
        escrow.depositFor(old, 9e6);
        _nameRecovery();
        _announce(thief);
        Succession.Word memory word = Words.about(escrow, old, address(0xAB), old);
        escrow.nameRecovery(word, Words.sign(escrow, Words.RECOVERY, OLD_KEY, word));
        vm.warp(block.timestamp + RECOVERY);
        _acceptReverts(abi.encodeWithSelector(Succession.NotAnnounced.selector, old, thief), thief, THIEF_KEY);
        assert(escrow.announcementOf(old).dueAt == 0 && escrow.balanceOf(old) == 9e6);
    }

    /// A thief who announces another wallet before each veto is mined has the whole delay before it again and again.
    function test_AVetoThatIsOvertakenLosesTheOwnerNothing() external {
        _nameRecovery();
        _announce(thief);
        vm.warp(block.timestamp + RECOVERY);
        Succession.Word memory veto = Words.about(escrow, old, thief, old);
        bytes memory byOld = Words.sign(escrow, Words.VETO, OLD_KEY, veto);
        _announce(fresh);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotAnnounced.selector, old, thief));
        escrow.vetoSuccession(veto, byOld);
        _acceptReverts(
            abi.encodeWithSelector(Succession.VetoStillPossible.selector, old, block.timestamp + RECOVERY), fresh, NEW_KEY
        );
        veto = Words.about(escrow, old, fresh, old);
        escrow.vetoSuccession(veto, Words.sign(escrow, Words.VETO, OLD_KEY, veto));
        assert(escrow.announcementOf(old).successor == address(0));
    }

    /// A word about to be a successor is none to hand over, to announce or to veto, whoever signed it.
    function test_AWordCountsInOneEscrowOnOneChainAndInOneRole() external {
        MarketEscrow other = _escrowOf(address(this), 1, 1, 1);
        Succession.Word memory word = Words.about(escrow, old, fresh, old);
        bytes memory byOld = Words.sign(escrow, Words.SUCCESSION, OLD_KEY, word);
        bytes memory byNew = Words.sign(escrow, Words.SUCCESSION, NEW_KEY, word);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotSignedBy.selector, old));
        other.handOver(word, byOld, byNew);
        vm.chainId(block.chainid + 1);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotSignedBy.selector, old));
        escrow.handOver(word, byOld, byNew);
        vm.chainId(31337);
        // The successor's own word alone, in the place of the owner's, of a recovery address's and as an acceptance.
        vm.expectRevert(abi.encodeWithSelector(Succession.NotSignedBy.selector, old));
        escrow.handOver(word, byNew, byNew);
        vm.expectRevert(abi.encodeWithSelector(Succession.NoRecovery.selector, old));
        escrow.announceSuccession(word, byNew);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotAnnounced.selector, old, fresh));
        escrow.acceptSuccession(word, byNew);
        escrow.proposeSuccession(old, fresh);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotSignedBy.selector, old));
        escrow.vetoSuccession(word, byOld);
        escrow.handOver(word, byOld, byNew);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotAnnounced.selector, old, fresh));
        escrow.acceptSuccession(word, byNew);
    }

    function test_OnlyTheOwnerNamesItsRecoveryAndOnlyThatOneAnnounces() external {
        Succession.Word memory word = Words.about(escrow, old, thief, old);
        bytes memory byThief = Words.sign(escrow, Words.RECOVERY, THIEF_KEY, word);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotSignedBy.selector, old));
        escrow.nameRecovery(word, byThief);
        word.subject = old;
        vm.expectRevert(abi.encodeWithSelector(Succession.OwnRecovery.selector, old));
        escrow.nameRecovery(word, byThief);
        _nameRecovery();
        assert(escrow.recoveryOf(old) == recovery);
        word = Words.about(escrow, old, thief, recovery);
        byThief = Words.sign(escrow, Words.SUCCESSION, THIEF_KEY, word);
        vm.expectRevert(abi.encodeWithSelector(Succession.NotSignedBy.selector, recovery));
        escrow.announceSuccession(word, byThief);
    }

    function test_TheAdminAnnouncesBehindItsTimelockAndTheOwnerCanVeto() external {
        MarketTimelock timelock = new MarketTimelock(2 days, address(this));
        MarketEscrow bound = _escrowOf(address(timelock), 1, 1, 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                IAccessControl.AccessControlUnauthorizedAccount.selector, address(this), bound.DEFAULT_ADMIN_ROLE()
            )
        );
        bound.proposeSuccession(old, fresh);
        bytes memory word = abi.encodeCall(MarketEscrow.proposeSuccession, (old, fresh));
        timelock.schedule(address(bound), 0, word, 0, 0, 2 days);
        vm.warp(block.timestamp + 2 days);
        timelock.execute(address(bound), 0, word, 0, 0);
        assert(bound.announcementOf(old).dueAt == block.timestamp + RECOVERY);
        Succession.Word memory veto = Words.about(bound, old, fresh, old);
        bound.vetoSuccession(veto, Words.sign(bound, Words.VETO, OLD_KEY, veto));
        assert(bound.announcementOf(old).successor == address(0));
    }

    // Money

    /// Whoever owes more than it has cannot leave that behind, whenever it changes its wallet, and however often.
    function testFuzz_ADebtIsNotShakenOff(uint64 held, uint64 pending, uint64 owed, uint8 hops, bool before) external {
        held = uint64(within(held, 0, 10e6));
        pending = uint64(within(pending, 0, 10e6));
        owed = uint64(within(owed, 1, 30e6));
        escrow.depositGuarantee(100e6);
        if (held + pending > 0) escrow.depositFor(old, held + pending);
        if (before) _settle(old, owed);
        if (pending > 0 && escrow.balanceOf(old) >= pending) {
            vm.prank(old);
            escrow.announceWithdrawal(pending);
        }
        (address owner, uint256 key) = (old, OLD_KEY);
        for (uint256 hop = 0; hop <= hops % 3; ++hop) {
            (address next, uint256 nextKey) = (vm.addr(0x5000 + hop), 0x5000 + hop);
            _pass(owner, key, next, nextKey);
            (owner, key) = (next, nextKey);
        }
        if (!before) _settle(old, owed);
        uint256 has = uint256(held) + pending;
        uint256 left = escrow.balanceOf(owner) + escrow.pendingWithdrawal(owner).amount;
        assert(left == (has > owed ? has - owed : 0));
        assert(escrow.debtOf(owner) == (owed > has ? owed - has : 0));
        assert(escrow.isBarred(owner) == (owed > has));
        assert(escrow.balanceOf(old) == 0 && escrow.debtOf(old) == 0);
        assert(escrow.guarantee() + escrow.debtOf(owner) == 100e6);
    }

    /// A batch that was made before pays the old wallet; anyone moves it on, to nobody else.
    function test_WhatComesToTheOldWalletLaterFollows() external {
        vm.expectRevert(abi.encodeWithSelector(FollowingCredit.NoSuccessor.selector, old));
        escrow.follow(old);
        _handOver();
        escrow.depositFor(address(0xD), 5e6);
        escrow.settle(MARKET, 0, 0, 0, _move(address(0xD), old, 5e6));
        assert(escrow.balanceOf(old) == 5e6);
        vm.expectRevert(abi.encodeWithSelector(Succession.AlreadySucceeded.selector, old, fresh));
        vm.prank(old);
        escrow.announceWithdrawal(1);
        vm.prank(thief);
        escrow.follow(old);
        assert(escrow.balanceOf(old) == 0 && escrow.balanceOf(fresh) == 5e6);
    }

    /// What is due is free of later shortfalls, and is paid to the wallet that stands there now.
    function test_WhatIsDueIsPaidToTheSuccessorAndWhatIsNotWaits() external {
        escrow.depositFor(old, 9e6);
        escrow.depositFor(fresh, 9e6);
        vm.prank(fresh);
        escrow.announceWithdrawal(2e6);
        vm.warp(block.timestamp + DELAY - 10);
        vm.prank(old);
        escrow.announceWithdrawal(3e6);
        uint256 dueAt = block.timestamp + DELAY;
        vm.warp(block.timestamp + 10);
        _handOver();
        assert(euro.balanceOf(fresh) == 2e6 && escrow.pendingTotal() == 3e6);
        assert(escrow.pendingWithdrawal(fresh).amount == 3e6 && escrow.pendingWithdrawal(fresh).dueAt == dueAt);
        vm.warp(dueAt);
        _pass(fresh, NEW_KEY, recovery, RECOVERY_KEY);
        assert(euro.balanceOf(recovery) == 3e6 && escrow.pendingTotal() == 0);
        assert(escrow.balanceOf(recovery) == 13e6);
    }

    function test_TheSuccessorOfADebtorRepaysAtOnceWhatItCan() external {
        escrow.depositGuarantee(10e6);
        _settle(old, 4e6);
        assert(escrow.debtOf(old) == 4e6);
        escrow.depositFor(fresh, 3e6);
        _handOver();
        assert(escrow.balanceOf(fresh) == 0 && escrow.debtOf(fresh) == 1e6 && escrow.isBarred(fresh));
    }

    /// A chunk is applied debits first: what the old wallet owes and its successor gets in one chunk is lent by the
    /// guarantee in between, and anyone brings it back out of what the successor got. Nobody wins or loses by it.
    function test_AChunkThatDebitsTheOldWalletAndCreditsTheNewOne() external {
        escrow.depositGuarantee(10e6);
        _handOver();
        bytes memory positions = fresh > address(0xE)
            ? abi.encodePacked(old, -int64(6e6), address(0xE), int64(2e6), fresh, int64(4e6))
            : abi.encodePacked(old, -int64(6e6), fresh, int64(4e6), address(0xE), int64(2e6));
        escrow.settle(MARKET, 0, 0, 0, positions);
        assert(escrow.balanceOf(fresh) == 4e6 && escrow.debtOf(fresh) == 6e6 && escrow.debtOf(old) == 0);
        assert(escrow.isBarred(old) && escrow.isBarred(fresh) && escrow.guarantee() == 4e6);
        escrow.collectDebt(fresh);
        assert(escrow.balanceOf(fresh) == 0 && escrow.debtOf(fresh) == 2e6 && escrow.guarantee() == 8e6);
        assert(escrow.totalSupply() == 2e6 && escrow.balanceOf(address(0xE)) == 2e6);
        assert(escrow.balanceOf(old) == 0 && escrow.balanceOf(address(escrow)) == 0);
    }

    /// What is lent by way of a successor counts in the window as all that is lent.
    function test_TheWindowsGuaranteeIsNotPassedByWayOfSuccessors() external {
        escrow.setLimits(1e12, 1e15, 5e6, 1 days);
        escrow.depositGuarantee(20e6);
        escrow.settle(MARKET, 1, 0, 0, _move(address(0xD), address(0xE), 3e6));
        _handOver();
        bytes memory positions = _move(old, address(0xE), 3e6);
        vm.expectRevert(abi.encodeWithSignature("GuaranteeBeyondLimit(uint256,uint256)", 6e6, 5e6));
        escrow.settle(MARKET, 2, 0, 0, positions);
        escrow.settle(MARKET, 3, 0, 0, _move(old, address(0xE), 2e6));
        assert(escrow.debtOf(fresh) == 2e6);
    }

    /// A device that signed for the old wallet is the new one's, and its place stays one meter's.
    function test_ABindingForAWalletThatHasASuccessorIsTheSuccessors() external {
        _handOver();
        address meter = _bind(old);
        assert(registry.meterOf(meter).owner == fresh && registry.meterAt(registry.meterOf(meter).connectionPoint) == meter);
        MeterRegistry.Binding[] memory bindings = new MeterRegistry.Binding[](1);
        bytes[] memory signatures = new bytes[](1);
        bindings[0] = Devices.bind(registry, 8, fresh, "point");
        signatures[0] = Devices.sign(registry, 8, bindings[0]);
        vm.expectRevert(
            abi.encodeWithSelector(MeterRegistry.ConnectionPointTaken.selector, bindings[0].connectionPoint, meter)
        );
        registry.register(bindings, signatures);
        vm.prank(fresh);
        registry.revoke(meter);
        registry.register(bindings, signatures);
        assert(registry.meterOf(meter).owner == address(0));
    }

    function test_AnExhaustedGuaranteeNamesWhoCannotPay() external {
        _handOver();
        vm.expectRevert(abi.encodeWithSelector(Guarantee.GuaranteeExhausted.selector, fresh, 1e6, 0));
        escrow.settle(MARKET, 0, 0, 0, _move(old, address(0xE), 1e6));
    }

    function _handOver() private {
        _pass(old, OLD_KEY, fresh, NEW_KEY);
    }

    function _pass(address owner, uint256 key, address successor, uint256 successorKey) private {
        Succession.Word memory word = Words.about(escrow, owner, successor, owner);
        escrow.handOver(
            word,
            Words.sign(escrow, Words.SUCCESSION, key, word),
            Words.sign(escrow, Words.SUCCESSION, successorKey, word)
        );
    }

    function _nameRecovery() private {
        Succession.Word memory word = Words.about(escrow, old, recovery, old);
        escrow.nameRecovery(word, Words.sign(escrow, Words.RECOVERY, OLD_KEY, word));
    }

    function _announce(address successor) private {
        Succession.Word memory word = Words.about(escrow, old, successor, recovery);
        escrow.announceSuccession(word, Words.sign(escrow, Words.SUCCESSION, RECOVERY_KEY, word));
    }

    function _accept(address successor, uint256 key) private {
        Succession.Word memory word = Words.about(escrow, old, successor, successor);
        escrow.acceptSuccession(word, Words.sign(escrow, Words.SUCCESSION, key, word));
    }

    function _acceptReverts(bytes memory reason, address successor, uint256 key) private {
        Succession.Word memory word = Words.about(escrow, old, successor, successor);
        bytes memory signature = Words.sign(escrow, Words.SUCCESSION, key, word);
        vm.expectRevert(reason);
        escrow.acceptSuccession(word, signature);
    }

    function _bind(address owner) private returns (address meter) {
        MeterRegistry.Binding[] memory bindings = new MeterRegistry.Binding[](1);
        bytes[] memory signatures = new bytes[](1);
        bindings[0] = Devices.bind(registry, 7, owner, "point");
        signatures[0] = Devices.sign(registry, 7, bindings[0]);
        registry.register(bindings, signatures);
        meter = bindings[0].meter;
    }

    function _settle(address debtor, uint64 amount) private {
        escrow.settle(MARKET, 0, 0, 0, _move(debtor, address(0xE), amount));
    }

    function _move(address debtor, address creditor, uint64 amount) private pure returns (bytes memory) {
        return abi.encodePacked(debtor, -int64(amount), creditor, int64(amount));
    }
}
