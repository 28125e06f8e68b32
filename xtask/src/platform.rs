//! The platforms everything is built for: one row each, one column for every tool's name of it.

use std::fmt;
use std::str::FromStr;

/// How a platform's binaries are linked. Fixed per row, never detected: every machine must make
/// the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linking {
    /// `rust-lld` and the C library that rustup ships with the target.
    RustLld,
    /// `cargo zigbuild`, with the C library that zig brings.
    Zig,
}

/// One platform, in the words of OCI, rustc, ELF and qemu.
#[derive(Debug, PartialEq, Eq)]
pub struct Platform {
    /// OCI's `architecture`, which is Go's `GOARCH`.
    pub architecture: &'static str,
    /// OCI's `variant`.
    pub variant: Option<&'static str>,
    /// The Rust target triple.
    pub target: &'static str,
    /// `e_machine` of the ELF header (<https://www.sco.com/developers/gabi/latest/ch4.eheader.html>).
    pub elf_machine: u16,
    /// 32 or 64, as in the ELF header's class.
    pub elf_bits: u8,
    /// The `qemu-NAME` that runs its programs.
    pub qemu: &'static str,
    /// How its binaries are linked.
    pub linking: Linking,
}

/// Every platform, in the order in which indexes list them.
pub const PLATFORMS: &[Platform] = &[
    row("amd64", None, "x86_64-unknown-linux-musl", 62, 64, "x86_64", Linking::RustLld),
    row("arm64", None, "aarch64-unknown-linux-musl", 183, 64, "aarch64", Linking::RustLld),
    row("arm", Some("v7"), "armv7-unknown-linux-musleabihf", 40, 32, "arm", Linking::Zig),
    row("arm", Some("v6"), "arm-unknown-linux-musleabihf", 40, 32, "arm", Linking::Zig),
    row("386", None, "i686-unknown-linux-musl", 3, 32, "i386", Linking::RustLld),
    row("ppc64le", None, "powerpc64le-unknown-linux-musl", 21, 64, "ppc64le", Linking::Zig),
    row("s390x", None, "s390x-unknown-linux-musl", 22, 64, "s390x", Linking::Zig),
    row("riscv64", None, "riscv64gc-unknown-linux-musl", 243, 64, "riscv64", Linking::Zig),
    row("loong64", None, "loongarch64-unknown-linux-musl", 258, 64, "loongarch64", Linking::Zig),
];

const fn row(
    architecture: &'static str,
    variant: Option<&'static str>,
    target: &'static str,
    elf_machine: u16,
    elf_bits: u8,
    qemu: &'static str,
    linking: Linking,
) -> Platform {
    Platform { architecture, variant, target, elf_machine, elf_bits, qemu, linking }
}

impl Platform {
    /// `linux-arm-v7`: for file and tag names, where a slash will not do.
    pub fn slug(&self) -> String {
        self.to_string().replace('/', "-")
    }

    /// Whether a configuration of an image is of it. Some say of arm64 that it is its v8, which is
    /// all there is.
    pub fn is_of(&self, config: &serde_json::Value) -> bool {
        let variant = config["variant"].as_str().filter(|it| !it.is_empty());
        let variant = variant.filter(|it| (self.architecture, *it) != ("arm64", "v8"));
        config["architecture"] == self.architecture && variant == self.variant
    }

    /// Whether its numbers begin with the highest byte: one of the nine.
    pub fn is_big_endian(&self) -> bool {
        self.architecture == "s390x"
    }

    /// Whether this machine's kernel runs its programs without help.
    pub fn is_native(&self) -> bool {
        match std::env::consts::ARCH {
            "x86_64" => matches!(self.architecture, "amd64" | "386"),
            "aarch64" => self.architecture == "arm64",
            "powerpc64" => self.architecture == "ppc64le" && cfg!(target_endian = "little"),
            "loongarch64" => self.architecture == "loong64",
            other => self.architecture == other,
        }
    }
}

/// The platform this machine is of, as far as running its binaries goes.
pub fn host() -> &'static Platform {
    PLATFORMS.iter().find(|platform| platform.is_native()).expect("xtask runs where images do")
}

impl fmt::Display for Platform {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "linux/{}", self.architecture)?;
        self.variant.map_or(Ok(()), |variant| write!(out, "/{variant}"))
    }
}

impl FromStr for &'static Platform {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        PLATFORMS.iter().find(|platform| platform.to_string() == name).ok_or_else(|| {
            let known: Vec<_> = PLATFORMS.iter().map(ToString::to_string).collect();
            format!("no such platform, the platforms are {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_found_by_the_name_it_prints() {
        for platform in PLATFORMS {
            assert_eq!(platform.to_string().parse::<&Platform>(), Ok(platform));
        }
    }

    #[test]
    fn an_unknown_platform_names_the_known_ones() {
        let error = "linux/mips".parse::<&Platform>().unwrap_err();
        assert_eq!(
            error,
            "no such platform, the platforms are linux/amd64, linux/arm64, linux/arm/v7, \
             linux/arm/v6, linux/386, linux/ppc64le, linux/s390x, linux/riscv64, linux/loong64"
        );
    }
}
