// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";
import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";
import {BackedCredit} from "./BackedCredit.sol";
import {Positions} from "./Positions.sol";
import {SettlementLimits} from "./SettlementLimits.sol";

/// @title A market's escrow, itself the ERC-20 credit that its members trade with
/// @notice The settler moves credit by batches of net positions. This contract does not trust it: whatever it sends,
/// - credit only moves, it is neither made nor lost: the supply is the same after as before;
/// - each (market, sequence) settles once;
/// - nobody owes more than its credit, a position's bound, or what a window has left;
/// - a batch is applied as a whole or not at all.
///
/// Each position is one ERC-20 `Transfer` between its account and the clearing account, which is this contract and
/// holds nothing before and after.
contract MarketEscrow is BackedCredit, SettlementLimits, AccessControl, Pausable, Multicall {
    using BitMaps for BitMaps.BitMap;
    using Positions for bytes;

    /// @notice May settle.
    bytes32 public constant SETTLER_ROLE = keccak256("SETTLER_ROLE");
    /// @notice May stop deposits and settlements, and let them go on. Withdrawals go on always.
    bytes32 public constant PAUSER_ROLE = keccak256("PAUSER_ROLE");
    /// @notice Most positions of one batch: as many as fit in a transaction (2^24 gas) with room to spare.
    uint256 public constant POSITIONS_MAX = 1500;

    mapping(bytes32 market => BitMaps.BitMap) private _settled;

    /// @notice A batch was applied.
    /// @param market the market, keccak256 of its id
    /// @param sequence the number of the batch in that market
    /// @param root commits the records that the batch follows from
    /// @param volume sum of its debits, which is the sum of its credits, µEUR
    event Settled(bytes32 indexed market, uint64 indexed sequence, bytes32 root, uint256 positions, uint256 volume);

    /// @notice This batch was applied before.
    error AlreadySettled(bytes32 market, uint64 sequence);
    /// @notice More positions than a batch may have.
    error TooManyPositions(uint256 positions, uint256 positionsMax);
    /// @notice Position `index` is zero, comes before one it must follow, or repeats its account. Order is: debits by
    /// ascending account, then credits by ascending account.
    error PositionOutOfOrder(uint256 index);
    /// @notice Debits and credits differ.
    error UnbalancedPositions(uint256 debits, uint256 credits);

    /// @param name of the credit, for wallets
    /// @param symbol of the credit, for wallets
    /// @param withdrawalDelay seconds; covers gate, netting, finality and late readings
    /// @param admin sets limits and roles
    /// @param positionDebitMax µEUR, see {SettlementLimits}
    /// @param windowDebitMax µEUR
    /// @param windowSeconds length of the limits' window
    constructor(
        string memory name,
        string memory symbol,
        IERC20Metadata stablecoin,
        uint64 withdrawalDelay,
        address admin,
        address settler,
        address pauser,
        uint64 positionDebitMax,
        uint64 windowDebitMax,
        uint32 windowSeconds
    ) ERC20(name, symbol) BackedCredit(stablecoin, withdrawalDelay) {
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
        _grantRole(SETTLER_ROLE, settler);
        _grantRole(PAUSER_ROLE, pauser);
        _setLimits(positionDebitMax, windowDebitMax, windowSeconds);
    }

    /// @notice Applies a batch of net positions.
    /// @param market keccak256 of the market's id
    /// @param sequence number of the batch in that market; each is taken once, in any order
    /// @param root commits the records that the batch follows from
    /// @param positions packed as {Positions} says: debits by ascending account, then credits by ascending account;
    /// no account twice on a side, none zero, together zero
    function settle(bytes32 market, uint64 sequence, bytes32 root, bytes calldata positions)
        external
        onlyRole(SETTLER_ROLE)
        whenNotPaused
    {
        BitMaps.BitMap storage settled = _settled[market];
        require(!settled.get(sequence), AlreadySettled(market, sequence));
        settled.set(sequence);

        uint256 count = positions.count();
        require(count <= POSITIONS_MAX, TooManyPositions(count, POSITIONS_MAX));
        (uint256 credited, uint256 debits) = _takeDebits(positions, count);
        _giveCredits(positions, credited, count, debits);
        _spendWindow(debits);
        emit Settled(market, sequence, root, count, debits);
    }

    /// @notice Whether the batch was applied.
    function isSettled(bytes32 market, uint64 sequence) external view returns (bool) {
        return _settled[market].get(sequence);
    }

    /// @notice Sets the settler's bounds, see {SettlementLimits}.
    function setLimits(uint64 positionDebitMax, uint64 windowDebitMax, uint32 windowSeconds)
        external
        onlyRole(DEFAULT_ADMIN_ROLE)
    {
        _setLimits(positionDebitMax, windowDebitMax, windowSeconds);
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

    /// @dev Moves what debtors owe to the clearing account.
    /// @return index the first position that is not a debit
    /// @return debits their sum, µEUR
    function _takeDebits(bytes calldata positions, uint256 count) private returns (uint256 index, uint256 debits) {
        uint256 debitMax = _positionDebitMax();
        address previous = address(0);
        for (; index < count; ++index) {
            (address account, int256 amount) = positions.read(index);
            if (amount >= 0) break;
            require(account > previous, PositionOutOfOrder(index));
            require(account != address(this), ClearingAccountRefused());
            // An int64 can be negated as an int256 without overflow.
            uint256 debit = uint256(-amount);
            require(debit <= debitMax, PositionBeyondLimit(account, debit, debitMax));
            debits += debit;
            _update(account, address(this), debit);
            previous = account;
        }
    }

    /// @dev Moves what creditors get out of the clearing account, from position `index` on: all of `debits`, exactly.
    function _giveCredits(bytes calldata positions, uint256 index, uint256 count, uint256 debits) private {
        uint256 credits = 0;
        address previous = address(0);
        for (; index < count; ++index) {
            (address account, int256 amount) = positions.read(index);
            require(amount > 0 && account > previous, PositionOutOfOrder(index));
            require(account != address(this), ClearingAccountRefused());
            credits += uint256(amount);
            require(credits <= debits, UnbalancedPositions(debits, credits));
            _update(address(this), account, uint256(amount));
            previous = account;
        }
        require(credits == debits, UnbalancedPositions(debits, credits));
    }
}
