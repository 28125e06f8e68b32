//! `SHA256SUMS`: what `sha256sum --check` reads.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::Asset;
use crate::files;

/// The checksums of `assets`, with bare names, sorted.
pub fn of(assets: &[Asset]) -> Asset {
    let mut sorted: Vec<_> = assets.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut text = String::new();
    for asset in sorted {
        let sum = hex::encode(Sha256::digest(&asset.bytes));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{sum}  {}", asset.name);
    }
    Asset { name: "SHA256SUMS".to_string(), bytes: text.into_bytes(), mode: files::PLAIN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_sum_two_spaces_and_a_bare_name() {
        let asset = |name: &str, bytes: &[u8]| Asset {
            name: name.to_string(),
            bytes: bytes.to_vec(),
            mode: files::PLAIN,
        };
        let sums = of(&[asset("b", b"abc"), asset("a", b"")]);
        assert_eq!(
            String::from_utf8(sums.bytes).unwrap(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a\n\
             ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  b\n"
        );
    }
}
