// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Net positions of a settlement batch, packed
/// @notice A position is 28 bytes: the account (20), then what it gets (> 0) or owes (< 0) as a big-endian
/// int64 in µEUR. A batch is its positions one after another, nothing between them.
library Positions {
    uint256 internal constant SIZE = 28;

    /// @notice The bytes are not a whole number of positions.
    error MalformedPositions(uint256 length);

    /// @return How many positions `packed` holds.
    function count(bytes calldata packed) internal pure returns (uint256) {
        require(packed.length % SIZE == 0, MalformedPositions(packed.length));
        return packed.length / SIZE;
    }

    /// @return cursor where the first position lies in the calldata
    /// @return end where the last one ends
    function bounds(bytes calldata packed) internal pure returns (uint256 cursor, uint256 end) {
        assembly ("memory-safe") {
            cursor := packed.offset
            end := add(cursor, packed.length)
        }
    }

    /// @notice The position at `cursor`, which must be before the end by {SIZE} at least: this is not checked again.
    /// @return account without dirty upper bits
    function read(uint256 cursor) internal pure returns (address account, int256 amount) {
        assembly ("memory-safe") {
            // Address, amount, and four bytes that are not this position's.
            let word := calldataload(cursor)
            account := shr(96, word)
            // The amount moved to the high end, then to the low end with its sign.
            amount := sar(192, shl(160, word))
        }
    }
}
