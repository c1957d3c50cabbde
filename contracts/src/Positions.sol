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

    /// @notice The position at `index`, which must be less than {count}: this is not checked again.
    function read(bytes calldata packed, uint256 index) internal pure returns (address account, int256 amount) {
        assembly ("memory-safe") {
            let start := add(packed.offset, mul(index, SIZE))
            account := shr(96, calldataload(start))
            // The 8 bytes after the address, moved to the low end with their sign.
            amount := sar(192, calldataload(add(start, 20)))
        }
    }
}
