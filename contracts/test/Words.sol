// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Succession} from "../src/Succession.sol";
import {signTyped} from "./TypedData.sol";

/// @notice Signs words about wallets with keys that forge holds.
library Words {
    bytes32 internal constant RECOVERY =
        keccak256("Recovery(address owner,address recovery,uint256 nonce,uint64 deadline)");
    bytes32 internal constant SUCCESSION =
        keccak256("Succession(address owner,address successor,uint256 nonce,uint64 deadline)");
    bytes32 internal constant VETO =
        keccak256("Veto(address owner,address successor,uint256 nonce,uint64 deadline)");

    /// @notice With the next nonce of `signer`, until now.
    function about(Succession owners, address owner, address subject, address signer)
        internal
        view
        returns (Succession.Word memory)
    {
        return Succession.Word(owner, subject, owners.nonces(signer), uint64(block.timestamp));
    }

    function sign(Succession owners, bytes32 typeHash, uint256 key, Succession.Word memory word)
        internal
        view
        returns (bytes memory)
    {
        bytes32 content = keccak256(abi.encode(typeHash, word.owner, word.subject, word.nonce, word.deadline));
        return signTyped(key, address(owners), content);
    }
}
