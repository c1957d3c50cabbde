// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {vm} from "./Vm.sol";

bytes32 constant DOMAIN =
    keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

/// @notice The signature, by a key that forge holds, of a struct's hash for `verifier` (EIP-712).
function signTyped(uint256 key, address verifier, bytes32 content) view returns (bytes memory) {
    bytes32 domain =
        keccak256(abi.encode(DOMAIN, keccak256("Peergrid"), keccak256("1"), block.chainid, verifier));
    (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, keccak256(abi.encodePacked(hex"1901", domain, content)));
    return abi.encodePacked(r, s, v);
}
