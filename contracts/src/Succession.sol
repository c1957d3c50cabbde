// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

/// @title Which wallet stands in for which, for good
/// @notice An owner changes its wallet as a whole: all that was the old one's is the new one's from then on, see
/// {FollowingCredit} for money and {MeterRegistry} for meters. There are three ways:
/// - the owner hands over, at once;
/// - the recovery address that the owner named announces it, for an owner whose key is lost;
/// - the admin announces it, for one who named none, or whose recovery key is lost as well. The admin is a timelock,
///   so that its word stood on the chain for a delay before it came here.
///
/// Whoever began it, the successor has to accept: nothing goes to a wallet that nobody has the key of. What was
/// announced can be accepted after {recoveryDelay}; until it is, the owner can veto it, and does so by naming another
/// recovery address as well. So a stolen recovery key wins nothing against an owner who looks at the chain more often
/// than that.
///
/// Everybody gives its word by an EIP-712 signature, or what a contract wallet takes for one (ERC-1271), and anyone
/// may bring it: no owner needs ether.
///
/// Invariants:
/// - a wallet has at most one successor and stands in for at most one, each for good, and never in a circle: wallets
///   form lines, and of a line the last wallet is the current one;
/// - only a wallet's own signature, or {recoveryDelay} without its veto, gives it a successor;
/// - which wallet is current is told in two reads, however long the line is.
abstract contract Succession is EIP712, Nonces {
    bytes32 private constant RECOVERY_TYPEHASH =
        keccak256("Recovery(address owner,address recovery,uint256 nonce,uint64 deadline)");
    bytes32 private constant SUCCESSION_TYPEHASH =
        keccak256("Succession(address owner,address successor,uint256 nonce,uint64 deadline)");
    bytes32 private constant VETO_TYPEHASH =
        keccak256("Veto(address owner,address successor,uint256 nonce,uint64 deadline)");

    /// @notice A word about two wallets.
    struct Word {
        address owner;
        /// A recovery address, or a successor.
        address subject;
        /// The signer's next nonce.
        uint256 nonce;
        /// Unix seconds: the last time at which the word can be brought.
        uint64 deadline;
    }

    struct Announcement {
        /// Zero: nothing is announced.
        address successor;
        /// Unix seconds from which on the successor may accept.
        uint64 dueAt;
    }

    /// @notice Seconds in which an owner can veto what was announced for it.
    uint64 public immutable recoveryDelay;
    /// @notice Who may announce a successor of an owner, or zero.
    mapping(address owner => address) public recoveryOf;

    mapping(address owner => Announcement) private _announcements;
    /// @dev The first wallet of the line that a wallet is in; zero for the first one itself, and without a line.
    mapping(address wallet => address) private _firstOf;
    /// @dev The last wallet of a line, by its first one.
    mapping(address first => address) private _lastOf;

    event RecoveryNamed(address indexed owner, address indexed recovery);
    event SuccessionAnnounced(address indexed owner, address indexed successor, address announcer, uint256 dueAt);
    event SuccessionVetoed(address indexed owner, address indexed successor);
    event Succeeded(address indexed owner, address indexed successor);

    /// @notice The word came too late.
    error WordExpired(address owner, uint64 deadline);
    /// @notice The word is not signed by the one whose it has to be.
    error NotSignedBy(address signer);
    /// @notice The owner has named no recovery address.
    error NoRecovery(address owner);
    /// @notice An owner is not its own recovery address.
    error OwnRecovery(address owner);
    /// @notice Another wallet has taken this one's place already.
    error AlreadySucceeded(address wallet, address current);
    /// @notice A successor is a wallet that neither is the owner nor stands in for another one nor has a successor.
    error NotASuccessor(address owner, address successor);
    /// @notice This successor was not announced for the owner, or was vetoed, or replaced by another one.
    error NotAnnounced(address owner, address successor);
    /// @notice The owner can veto until then.
    error VetoStillPossible(address owner, uint256 dueAt);

    constructor(uint64 recoveryDelay_) {
        recoveryDelay = recoveryDelay_;
    }

    /// @notice Names `word.subject` as the recovery address of `word.owner`, who signs; zero for none. An owner who
    /// says that has its key: what was announced for it ends.
    function nameRecovery(Word calldata word, bytes calldata signature) external {
        require(word.subject != word.owner, OwnRecovery(word.owner));
        _take(RECOVERY_TYPEHASH, word, word.owner, signature);
        recoveryOf[word.owner] = word.subject;
        emit RecoveryNamed(word.owner, word.subject);
        address announced = _announcements[word.owner].successor;
        if (announced != address(0)) _endAnnouncement(word.owner, announced);
    }

    /// @notice Gives `word.owner` its successor at once. Both sign the same word, with the owner's nonce.
    function handOver(Word calldata word, bytes calldata ownerSignature, bytes calldata successorSignature)
        external
    {
        _take(SUCCESSION_TYPEHASH, word, word.owner, ownerSignature);
        _check(SUCCESSION_TYPEHASH, word, word.subject, successorSignature);
        _succeed(word.owner, word.subject);
    }

    /// @notice Announces a successor of `word.owner`, whose recovery address signs, with its own nonce. A later
    /// announcement takes the place of an earlier one, and has the whole delay before it.
    function announceSuccession(Word calldata word, bytes calldata signature) external {
        address recovery = recoveryOf[word.owner];
        require(recovery != address(0), NoRecovery(word.owner));
        _take(SUCCESSION_TYPEHASH, word, recovery, signature);
        _announce(word.owner, word.subject, recovery);
    }

    /// @notice Ends what was announced for `word.owner`, who signs.
    function vetoSuccession(Word calldata word, bytes calldata signature) external {
        _announced(word);
        _take(VETO_TYPEHASH, word, word.owner, signature);
        _endAnnouncement(word.owner, word.subject);
    }

    /// @notice Makes what was announced true, once it is due. The successor signs, with its own nonce.
    function acceptSuccession(Word calldata word, bytes calldata signature) external {
        uint64 dueAt = _announced(word);
        require(block.timestamp >= dueAt, VetoStillPossible(word.owner, dueAt));
        _take(SUCCESSION_TYPEHASH, word, word.subject, signature);
        _succeed(word.owner, word.subject);
    }

    /// @notice What was announced for an owner; zeros where nothing was.
    function announcementOf(address owner) external view returns (Announcement memory) {
        return _announcements[owner];
    }

    /// @notice The wallet that stands in for `owner` now, which is `owner` itself where none does.
    function currentWallet(address owner) public view returns (address) {
        address first = _firstOf[owner];
        address last = _lastOf[first == address(0) ? owner : first];
        return last == address(0) ? owner : last;
    }

    /// @dev Who may announce is the caller's to say.
    function _announce(address owner, address successor, address announcer) internal {
        _checkPair(owner, successor);
        uint64 dueAt = uint64(block.timestamp) + recoveryDelay;
        _announcements[owner] = Announcement(successor, dueAt);
        emit SuccessionAnnounced(owner, successor, announcer, dueAt);
    }

    /// @dev All that is `owner`'s becomes `successor`'s.
    function _follow(address owner, address successor) internal virtual;

    function _endAnnouncement(address owner, address successor) private {
        delete _announcements[owner];
        emit SuccessionVetoed(owner, successor);
    }

    function _succeed(address owner, address successor) private {
        _checkPair(owner, successor);
        delete _announcements[owner];
        address first = _firstOf[owner] == address(0) ? owner : _firstOf[owner];
        _firstOf[successor] = first;
        _lastOf[first] = successor;
        emit Succeeded(owner, successor);
        _follow(owner, successor);
    }

    function _checkPair(address owner, address successor) private view {
        address current = currentWallet(owner);
        require(current == owner, AlreadySucceeded(owner, current));
        require(
            owner != address(0) && successor != address(0) && successor != owner && successor != address(this)
                && _firstOf[successor] == address(0) && _lastOf[successor] == address(0),
            NotASuccessor(owner, successor)
        );
    }

    /// @return dueAt when what the word is about may be accepted, Unix seconds
    function _announced(Word calldata word) private view returns (uint64 dueAt) {
        Announcement memory announcement = _announcements[word.owner];
        require(
            word.subject != address(0) && announcement.successor == word.subject,
            NotAnnounced(word.owner, word.subject)
        );
        return announcement.dueAt;
    }

    /// @dev The same as {_check}, once.
    function _take(bytes32 typeHash, Word calldata word, address signer, bytes calldata signature) private {
        _check(typeHash, word, signer, signature);
        _useCheckedNonce(signer, word.nonce);
    }

    function _check(bytes32 typeHash, Word calldata word, address signer, bytes calldata signature) private view {
        require(block.timestamp <= word.deadline, WordExpired(word.owner, word.deadline));
        bytes32 structHash =
            keccak256(abi.encode(typeHash, word.owner, word.subject, word.nonce, word.deadline));
        require(
            SignatureChecker.isValidSignatureNowCalldata(signer, _hashTypedDataV4(structHash), signature),
            NotSignedBy(signer)
        );
    }
}
