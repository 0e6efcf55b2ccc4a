"""Keys of the protocol: signatures, agreement, derivation, sealed messages and masks.

Every primitive is of the package ``cryptography``: Ed25519, X25519, HKDF-SHA256, AES-GCM, ChaCha20.
"""

import hashlib

import numpy as np
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PROTOCOL = b"fed-gswgan secure aggregation 1"
KEY_BYTES, SIGNATURE_BYTES, TAG_BYTES = 32, 64, 16
CLIENT_ID_BYTES = 16  # of a key's hash: nobody finds another key of the same id
# A sealing key seals one message and a mask's key draws one mask, so that neither needs a nonce.
NO_NONCE, NO_COUNTER = bytes(12), bytes(16)
WORD_BYTES = 4


class Identity:
    """A device's own key, which its guard keeps.

    Args:
        secret: 32 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, *parts: bytes) -> bytes:
        """Return a signature of these parts, 64 bytes."""
        return self._key.sign(digest(*parts))

    def prove(self, challenge: bytes) -> bytes:
        """Return the public key, and a signature of what a server drew for this answer alone."""
        return self.public + self.sign(b"register", challenge)


def proven(proof: bytes, challenge: bytes) -> bytes:
    """Return the public key of who answered a challenge.

    Raises:
        ValueError: the answer is not signed with the key that it shows.
    """
    public, signature = proof[:KEY_BYTES], proof[KEY_BYTES:]
    if not is_signed(public, signature, b"register", challenge):
        raise ValueError("the node does not hold the key that it shows")
    return public


def client_id_of(public: bytes) -> str:
    """Return the client id of a device: a hash of its public key, 32 hexadecimal digits."""
    return digest(b"client", public)[:CLIENT_ID_BYTES].hex()


def is_signed(public: bytes, signature: bytes, *parts: bytes) -> bool:
    """Tell whether the holder of a key signed these parts."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, digest(*parts))
    except (InvalidSignature, ValueError):
        return False
    return True


def digest(*parts: bytes) -> bytes:
    """Return the SHA-256 of the parts, in which each is told from the next by its length."""
    found = hashlib.sha256(PROTOCOL)
    for part in parts:
        found.update(len(part).to_bytes(8, "big"))
        found.update(part)
    return found.digest()


def public_of(private: bytes) -> bytes:
    """Return the X25519 public key of 32 private bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agreed(private: bytes, public: bytes, *context: bytes) -> bytes:
    """Return a key of 32 bytes that both holders derive for this context.

    Raises:
        ValueError: the public key is of low order, which would agree on a known secret.
    """
    secret = X25519PrivateKey.from_private_bytes(private).exchange(
        X25519PublicKey.from_public_bytes(public)
    )
    return derived(secret, *context)


def derived(secret: bytes, *context: bytes) -> bytes:
    """Return a key of 32 bytes, another one for each context."""
    info = PROTOCOL + digest(*context)
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=info).derive(secret)


def seal(key: bytes, text: bytes, *context: bytes) -> bytes:
    """Encrypt and authenticate, for a key that seals nothing else; 16 bytes longer."""
    return AESGCM(key).encrypt(NO_NONCE, text, digest(*context))


def unseal(key: bytes, sealed: bytes, *context: bytes) -> bytes:
    """Return what was sealed.

    Raises:
        ValueError: it was sealed under another key or context, or changed.
    """
    try:
        return AESGCM(key).decrypt(NO_NONCE, sealed, digest(*context))
    except InvalidTag as error:
        raise ValueError("a sealed message is not from whom it claims to be") from error


def mask(key: bytes, count: int, modulus_bits: int) -> np.ndarray:
    """Return pseudo-random whole numbers below 2^modulus_bits, int64 (count,).

    Args:
        key: 32 bytes, of this mask alone.
        count: of numbers.
        modulus_bits: 1 to 31.
    """
    stream = Cipher(ChaCha20(key, NO_COUNTER), mode=None).encryptor()
    words = np.frombuffer(stream.update(bytes(WORD_BYTES * count)), "<u4")
    return (words & np.uint32(2**modulus_bits - 1)).astype(np.int64)
