//! Named random streams: one seed gives all randomness, and each use has its own stream, so that one can change without
//! moving the others.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The seed of a named stream: the first eight bytes of SHA-256 over the seed and the name.
pub fn stream_seed(seed: u64, stream: &str) -> u64 {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(stream.as_bytes()).finalize();
    digest.iter().take(8).fold(0, |value, &byte| value << 8 | u64::from(byte))
}

pub(crate) fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(stream_seed(seed, name))
}
