// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";
import {BackedCredit} from "./BackedCredit.sol";
import {Guarantee} from "./Guarantee.sol";
import {Positions} from "./Positions.sol";
import {SettlementLimits} from "./SettlementLimits.sol";
import {Succession} from "./Succession.sol";

/// @title A market's escrow, itself the ERC-20 credit that its members trade with
/// @notice The settler moves credit by batches of net positions. This contract does not trust it: whatever it sends,
/// - credit only moves; a batch changes the supply by what it draws for shortfalls, see {Guarantee}, and nothing else;
/// - each (market, sequence, chunk) settles once;
/// - nobody owes more than a position's bound, or what a window has left, see {SettlementLimits};
/// - one account that cannot pay does not hold up the others, as long as there is a guarantee, of which a window has
///   its share;
/// - a chunk is applied as a whole or not at all.
/// Besides by settlement, credit moves to the wallet that takes an owner's place, see {Succession}.
///
/// Each position is one ERC-20 `Transfer` between its account and the clearing account, which is this contract and
/// holds nothing before and after.
/// @dev Pausable comes right before SettlementLimits so that its flag lies in the same slot.
contract MarketEscrow is Guarantee, AccessControl, Pausable, SettlementLimits, Multicall {
    using BitMaps for BitMaps.BitMap;
    using Positions for bytes;

    struct Delays {
        /// Seconds; covers gate, netting, finality and late readings.
        uint64 withdrawal;
        /// Seconds, see {Succession}.
        uint64 recovery;
    }

    /// @notice May settle.
    bytes32 public constant SETTLER_ROLE = keccak256("SETTLER_ROLE");
    /// @notice May stop deposits and settlements, and let them go on. Withdrawals go on always.
    bytes32 public constant PAUSER_ROLE = keccak256("PAUSER_ROLE");
    /// @notice Most positions of one chunk: as many as fit in a transaction (2^24 gas) with room to spare, where
    /// all accounts have credit already.
    uint256 public constant POSITIONS_MAX = 1500;

    mapping(bytes32 market => BitMaps.BitMap) private _settled;

    /// @notice A chunk of a batch was applied.
    /// @param market the market, keccak256 of its id
    /// @param sequence the number of the batch in that market
    /// @param chunk the part of the batch, from 0
    /// @param root commits the records that the batch follows from: an OpenZeppelin-compatible Merkle root
    /// @param positions how many
    /// @param volume sum of its debits, which is the sum of its credits, µEUR
    event Settled(
        bytes32 indexed market, uint64 indexed sequence, uint32 chunk, bytes32 root, uint256 positions, uint256 volume
    );

    /// @notice This chunk was applied before.
    error AlreadySettled(bytes32 market, uint64 sequence, uint32 chunk);
    /// @notice More positions than a chunk may have.
    error TooManyPositions(uint256 positions, uint256 positionsMax);
    /// @notice Position `index` is zero, comes before one it must follow, or repeats its account. Order is: debits by
    /// ascending account, then credits by ascending account.
    error PositionOutOfOrder(uint256 index);
    /// @notice Debits and credits differ.
    error UnbalancedPositions(uint256 debits, uint256 credits);

    /// @param name of the credit, for wallets
    /// @param symbol of the credit, for wallets
    /// @param admin sets limits and roles and takes back the guarantee, announces successors: a timelock
    /// @param positionDebitMax µEUR, see {SettlementLimits}
    /// @param windowDebitMax µEUR
    /// @param guaranteeMax µEUR of one window, see {SettlementLimits}
    /// @param windowSeconds length of the limits' window
    constructor(
        string memory name,
        string memory symbol,
        IERC20Metadata stablecoin_,
        Delays memory delays,
        address admin,
        address settler,
        address pauser,
        uint56 positionDebitMax,
        uint56 windowDebitMax,
        uint56 guaranteeMax,
        uint32 windowSeconds
    ) ERC20(name, symbol) BackedCredit(stablecoin_, delays.withdrawal) EIP712("Peergrid", "1") Succession(delays.recovery) {
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
        _grantRole(SETTLER_ROLE, settler);
        _grantRole(PAUSER_ROLE, pauser);
        _setLimits(positionDebitMax, windowDebitMax, guaranteeMax, windowSeconds);
    }

    /// @notice Applies a chunk of a batch of net positions.
    /// @param market keccak256 of the market's id
    /// @param sequence number of the batch in that market; in any order
    /// @param chunk number of the part of the batch; each (market, sequence, chunk) is taken once
    /// @param root commits the records that the batch follows from
    /// @param positions packed as {Positions} says: debits by ascending account, then credits by ascending account;
    /// no account twice on a side, none zero, together zero
    function settle(bytes32 market, uint64 sequence, uint32 chunk, bytes32 root, bytes calldata positions)
        external
        onlyRole(SETTLER_ROLE)
        whenNotPaused
    {
        BitMaps.BitMap storage settled = _settled[market];
        uint256 bit = _bit(sequence, chunk);
        require(!settled.get(bit), AlreadySettled(market, sequence, chunk));
        settled.set(bit);

        uint256 count = positions.count();
        require(count <= POSITIONS_MAX, TooManyPositions(count, POSITIONS_MAX));
        Limits memory current = limits();
        (uint256 first, uint256 end) = positions.bounds();
        (uint256 cursor, uint256 debits) = _takeDebits(first, end, current.positionDebitMax);
        _giveCredits(first, cursor, end, debits);
        _spendWindow(current, debits);
        emit Settled(market, sequence, chunk, root, count, debits);
    }

    /// @notice Whether the chunk was applied.
    function isSettled(bytes32 market, uint64 sequence, uint32 chunk) external view returns (bool) {
        return _settled[market].get(_bit(sequence, chunk));
    }

    /// @notice Sets the settler's bounds, see {SettlementLimits}.
    function setLimits(uint56 positionDebitMax, uint56 windowDebitMax, uint56 guaranteeMax, uint32 windowSeconds)
        external
        onlyRole(DEFAULT_ADMIN_ROLE)
    {
        _setLimits(positionDebitMax, windowDebitMax, guaranteeMax, windowSeconds);
    }

    /// @notice Pays `amount` µEUR of the guarantee to `receiver`.
    function withdrawGuarantee(address receiver, uint256 amount) external onlyRole(DEFAULT_ADMIN_ROLE) {
        _withdrawGuarantee(receiver, amount);
    }

    /// @notice Announces that `successor` takes the place of `owner`, who can veto it.
    function proposeSuccession(address owner, address successor) external onlyRole(DEFAULT_ADMIN_ROLE) {
        _announce(owner, successor, _msgSender());
    }

    /// @notice Stops deposits and settlements; withdrawals go on.
    function pause() external onlyRole(PAUSER_ROLE) {
        _pause();
    }

    function unpause() external onlyRole(PAUSER_ROLE) {
        _unpause();
    }

    /// @inheritdoc BackedCredit
    function depositFor(address account, uint256 amount) public override whenNotPaused {
        super.depositFor(account, amount);
    }

    /// @inheritdoc BackedCredit
    function depositWithPermit(address owner, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        public
        override
        whenNotPaused
    {
        super.depositWithPermit(owner, amount, deadline, v, r, s);
    }

    /// @inheritdoc SettlementLimits
    function _spendGuarantee(uint256 amount) internal override(Guarantee, SettlementLimits) {
        SettlementLimits._spendGuarantee(amount);
    }

    /// @dev Chunks of one number lie side by side by sequence, so that 256 batches share a storage slot.
    function _bit(uint64 sequence, uint32 chunk) private pure returns (uint256) {
        return uint256(chunk) << 64 | sequence;
    }

    /// @dev Moves what debtors owe to the clearing account.
    /// @return cursor where the first position lies that is not a debit
    /// @return debits their sum, µEUR: at most 1500 · 2^63
    function _takeDebits(uint256 first, uint256 end, uint256 debitMax)
        private
        returns (uint256 cursor, uint256 debits)
    {
        cursor = first;
        address previous = address(0);
        // Nothing here can overflow: a place in the calldata, an int64 negated as an int256, a sum below 2^74.
        unchecked {
            while (cursor != end) {
                (address account, int256 amount) = Positions.read(cursor);
                if (amount >= 0) break;
                if (account <= previous) revert PositionOutOfOrder((cursor - first) / Positions.SIZE);
                if (account == address(this)) revert ClearingAccountRefused();
                uint256 debit = uint256(-amount);
                if (debit > debitMax) revert PositionBeyondLimit(account, debit, debitMax);
                debits += debit;
                uint256 missing = _debit(account, debit);
                if (missing != 0) _takeShort(account, debit, missing);
                previous = account;
                cursor += Positions.SIZE;
            }
        }
    }

    /// @dev Moves what creditors get out of the clearing account, from `cursor` on: all of `debits`, exactly.
    function _giveCredits(uint256 first, uint256 cursor, uint256 end, uint256 debits) private {
        uint256 credits = 0;
        address previous = address(0);
        unchecked {
            while (cursor != end) {
                (address account, int256 amount) = Positions.read(cursor);
                if (amount <= 0 || account <= previous) {
                    revert PositionOutOfOrder((cursor - first) / Positions.SIZE);
                }
                if (account == address(this)) revert ClearingAccountRefused();
                credits += uint256(amount);
                _credit(account, uint256(amount));
                previous = account;
                cursor += Positions.SIZE;
            }
        }
        // Before this line more may have been given than was taken; if so, none of it happened.
        require(credits == debits, UnbalancedPositions(debits, credits));
    }
}
