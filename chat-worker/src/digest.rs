//! Digests of texts. Pure.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// A SHA-256 of texts in their order, in hexadecimal.
pub fn digest(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    HEXLOWER.encode(&hasher.finalize())
}
