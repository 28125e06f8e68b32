//! What `sha256sum --check` reads: `SHA256SUMS`, and a `.sha256` beside each download.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::Asset;

/// The checksums of `assets`, with bare names, sorted.
pub fn of(assets: &[Asset]) -> Asset {
    let mut sorted: Vec<_> = assets.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut text = String::new();
    for asset in sorted {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line(asset));
    }
    Asset::plain("SHA256SUMS", text)
}

/// The checksum of one asset, in a file of its own.
pub fn of_one(asset: &Asset) -> Asset {
    Asset::plain(format!("{}.sha256", asset.name), format!("{}\n", line(asset)))
}

fn line(asset: &Asset) -> String {
    format!("{}  {}", sum(asset), asset.name)
}

/// SHA-256 of its bytes, in hexadecimal.
pub fn sum(asset: &Asset) -> String {
    hex::encode(Sha256::digest(&asset.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_sum_two_spaces_and_a_bare_name() {
        let sums = of(&[Asset::plain("b", "abc"), Asset::plain("a", "")]);
        assert_eq!(
            String::from_utf8(sums.bytes).unwrap(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a\n\
             ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  b\n"
        );
    }
}
