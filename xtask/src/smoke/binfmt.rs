//! How the kernel is told to run a foreign platform's programs through qemu
//! (<https://docs.kernel.org/admin-guide/binfmt-misc.html>).

use std::fmt::Write;
use std::fs;

use crate::platform::Platform;

/// Where the kernel keeps its registrations.
pub const DIRECTORY: &str = "/proc/sys/fs/binfmt_misc";

/// As much of an ELF header as says whose program it is: up to `e_machine`.
const HEADER: usize = 20;

/// Where `e_type` and `e_machine` are in it.
const TYPE: usize = 16;
const MACHINE: usize = 18;

/// The line for `register`, for a `qemu-NAME` in the working directory: a path could be too long,
/// or have a colon in it. The flags: O hands the program over as a descriptor, so that it need not
/// be readable; P keeps `argv[0]`; F opens qemu now, on this side of the pivot to the image.
pub fn registration(platform: &Platform) -> String {
    let (magic, mask) = (escaped(&header(platform)), escaped(&mask(platform)));
    format!(":{0}:M::{magic}:{mask}:{0}:OPF", interpreter(platform))
}

/// `qemu-NAME`.
pub fn interpreter(platform: &Platform) -> String {
    format!("qemu-{}", platform.qemu)
}

/// Whether the machine itself has an entry that works in a root of its own.
pub fn is_registered(platform: &Platform) -> bool {
    registered(platform).is_some()
}

/// That entry, as the kernel shows it.
pub fn registered(platform: &Platform) -> Option<String> {
    let entries = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    let mut texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    texts.find(|text| is_for(text, platform))
}

/// The emulator that an entry names.
pub fn interpreter_of(entry: &str) -> Option<&str> {
    entry.lines().find_map(|line| line.strip_prefix("interpreter "))
}

fn is_for(entry: &str, platform: &Platform) -> bool {
    let field = |name: &str| entry.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let bytes = |name| field(name).and_then(|it| hex::decode(it).ok());
    let (Some(magic), Some(flags)) = (bytes("magic "), field("flags:")) else { return false };
    let mask = bytes("mask ").unwrap_or_else(|| vec![0xff; magic.len()]);
    let header = header(platform);
    let matches = magic.iter().zip(&mask).zip(&header).all(|((a, mask), b)| a & mask == b & mask);
    entry.starts_with("enabled") && flags.contains('F') && magic.len() == HEADER && matches
}

/// The start of an executable of `platform`.
fn header(platform: &Platform) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(b"\x7fELF");
    header[4] = if platform.elf_bits == 64 { 2 } else { 1 };
    header[5] = if platform.is_big_endian() { 2 } else { 1 };
    header[6] = 1;
    header[TYPE..MACHINE].copy_from_slice(&in_order(platform, 2));
    header[MACHINE..].copy_from_slice(&in_order(platform, platform.elf_machine));
    header
}

/// Which of its bits matter: not the system it is for, the padding, or whether it is
/// position-independent (`e_type` 3 instead of 2).
fn mask(platform: &Platform) -> [u8; HEADER] {
    let mut mask = [0xff; HEADER];
    mask[7..TYPE].fill(0);
    mask[TYPE..MACHINE].copy_from_slice(&in_order(platform, 0xfffe));
    mask
}

fn in_order(platform: &Platform, half: u16) -> [u8; 2] {
    if platform.is_big_endian() { half.to_be_bytes() } else { half.to_le_bytes() }
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "\\x{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::PLATFORMS;

    #[test]
    fn a_big_endian_registration_has_its_halves_turned_round() {
        let platform: &Platform = "linux/s390x".parse().unwrap();
        assert_eq!(
            registration(platform),
            concat!(
                r":qemu-s390x:M:",
                r":\x7f\x45\x4c\x46\x02\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x16",
                r":\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xfe\xff\xff",
                r":qemu-s390x:OPF",
            )
        );
    }

    #[test]
    fn an_entry_of_the_machine_is_for_one_kind_of_elf_header() {
        let entry = "enabled\ninterpreter /usr/bin/qemu-arm\nflags: OCF\noffset 0\n\
                     magic 7f454c4601010100000000000000000002002800\n\
                     mask ffffffffffffff00fffffffffffffffffeffffff\n";
        let found = PLATFORMS.iter().filter(|platform| is_for(entry, platform));
        let names: Vec<_> = found.map(ToString::to_string).collect();
        assert_eq!(names, ["linux/arm/v7", "linux/arm/v6"]);
        assert_eq!(interpreter_of(entry), Some("/usr/bin/qemu-arm"));
        let platform: &Platform = "linux/arm/v7".parse().unwrap();
        assert!(!is_for(&entry.replace("OCF", "OC"), platform), "it cannot be found in the image");
        assert!(!is_for(&entry.replace("enabled", "disabled"), platform));
    }
}
