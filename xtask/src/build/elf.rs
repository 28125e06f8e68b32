//! What a binary says of itself in its ELF header: for which machine it is, and what it asks for.

use std::fmt::Display;

use anyhow::{Context as _, Result, ensure};
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{
    AttributeReader, Dyn as _, FileHeader, ProgramHeader as _, SectionHeader as _,
};
use object::{Endianness, FileKind};

use crate::platform::Platform;

/// The tag of an ARM binary's attributes that tells the oldest processor it runs on
/// (<https://github.com/ARM-software/abi-aa/blob/main/addenda32/addenda32.rst>).
const TAG_CPU_ARCH: u64 = 6;

/// `Tag_CPU_arch` of the first Raspberry Pi and all that came before: up to v6, v6KZ and v6K, but
/// not v6T2 (8), which has instructions that these lack.
const UP_TO_V6: &[u64] = &[0, 1, 2, 3, 4, 5, 6, 7, 9];

/// What a binary says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Facts {
    bits: u8,
    is_big_endian: bool,
    machine: u16,
    file_type: u16,
    interpreter: Option<String>,
    libraries: usize,
    /// ARM's `Tag_CPU_arch`.
    cpu: Option<u64>,
}

/// Fails unless `bytes` are a static program for `platform`.
pub fn check(bytes: &[u8], platform: &Platform) -> Result<()> {
    let facts = facts(bytes).context("it is no ELF file")?;
    same("class in bits", &platform.elf_bits, &facts.bits)?;
    let order = |is_big| if is_big { "big-endian" } else { "little-endian" };
    same("byte order", &order(platform.is_big_endian()), &order(facts.is_big_endian))?;
    same("machine", &platform.elf_machine, &facts.machine)?;
    let is_program = [elf::ET_EXEC.0, elf::ET_DYN.0].contains(&facts.file_type);
    ensure!(is_program, "type: expected a program (2 or 3), found {}", facts.file_type);
    same("interpreter", &"none", &facts.interpreter.as_deref().unwrap_or("none"))?;
    same("shared libraries", &0, &facts.libraries)?;
    if platform.variant == Some("v6") {
        let cpu = facts.cpu.context("processor: expected ARM's Tag_CPU_arch, found none")?;
        ensure!(UP_TO_V6.contains(&cpu), "processor: expected at most ARMv6, found number {cpu}");
    }
    Ok(())
}

/// Whether `bytes` are a program that runs where there are no other files.
pub fn is_static(bytes: &[u8]) -> bool {
    facts(bytes).is_ok_and(|facts| facts.interpreter.is_none() && facts.libraries == 0)
}

fn same<T: Display + PartialEq>(what: &str, expected: &T, found: &T) -> Result<()> {
    ensure!(expected == found, "{what}: expected {expected}, found {found}");
    Ok(())
}

fn facts(bytes: &[u8]) -> Result<Facts> {
    match FileKind::parse(bytes)? {
        FileKind::Elf32 => facts_of::<FileHeader32<Endianness>>(bytes, 32),
        FileKind::Elf64 => facts_of::<FileHeader64<Endianness>>(bytes, 64),
        other => anyhow::bail!("it is {other:?}"),
    }
}

fn facts_of<Elf: FileHeader<Endian = Endianness>>(bytes: &[u8], bits: u8) -> Result<Facts> {
    let header = Elf::parse(bytes)?;
    let endian = header.endian()?;
    let mut facts = Facts {
        bits,
        is_big_endian: endian == Endianness::Big,
        machine: header.e_machine(endian).0,
        file_type: header.e_type(endian).0,
        ..Facts::default()
    };
    for segment in header.program_headers(endian, bytes)? {
        if let Some(name) = segment.interpreter(endian, bytes)? {
            facts.interpreter = Some(String::from_utf8_lossy(name).into_owned());
        }
        let entries = segment.dynamic(endian, bytes)?.unwrap_or_default();
        facts.libraries += entries.iter().filter(|it| it.tag(endian) == elf::DT_NEEDED).count();
    }
    if facts.machine == elf::EM_ARM.0 {
        facts.cpu = cpu(header, endian, bytes)?;
    }
    Ok(facts)
}

/// ARM's `Tag_CPU_arch`, which the linker has raised to the highest of all that went in.
fn cpu<Elf: FileHeader<Endian = Endianness>>(
    header: &Elf,
    endian: Endianness,
    bytes: &[u8],
) -> Result<Option<u64>> {
    for section in header.section_headers(endian, bytes)? {
        if section.sh_type(endian) != elf::SHT_ARM_ATTRIBUTES {
            continue;
        }
        for subsection in section.attributes(endian, bytes)?.subsections()? {
            let mut parts = subsection?.subsubsections();
            let Some(part) = parts.next()? else { continue };
            if let Some(cpu) = cpu_of(part.attributes())? {
                return Ok(Some(cpu));
            }
        }
    }
    Ok(None)
}

/// Finds `Tag_CPU_arch`, which need not come first. A tag tells how its value is written: number
/// or text; one has both.
fn cpu_of(mut attributes: AttributeReader<'_>) -> Result<Option<u64>> {
    while let Some(tag) = attributes.read_tag()? {
        match tag {
            TAG_CPU_ARCH => return Ok(Some(attributes.read_integer()?)),
            4 | 5 => drop(attributes.read_string()?),
            32 => {
                attributes.read_integer()?;
                attributes.read_string()?;
            }
            33.. if tag % 2 == 1 => drop(attributes.read_string()?),
            _ => drop(attributes.read_integer()?),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of nothing but an ELF header and one program header, 64-bit and little-endian.
    fn tiny(machine: u16, file_type: u16, segment: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        bytes.extend(file_type.to_le_bytes());
        bytes.extend(machine.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend([0_u64, 64, 0].map(u64::to_le_bytes).concat());
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend([64_u16, 56, 1, 64, 0, 0].map(u16::to_le_bytes).concat());
        bytes.extend([segment, 4].map(u32::to_le_bytes).concat());
        let size = content.len() as u64;
        bytes.extend([120, 0, 0, size, size, 1].map(u64::to_le_bytes).concat());
        bytes.extend(content);
        bytes
    }

    #[track_caller]
    fn check_finds(bytes: &[u8], platform: &str, expected: &str) {
        let platform: &Platform = platform.parse().unwrap();
        let found = check(bytes, platform).map_err(|err| format!("{err:#}"));
        assert_eq!(found.err().as_deref().unwrap_or("nothing"), expected);
    }

    #[test]
    fn a_static_program_passes() {
        check_finds(&tiny(62, 2, 1, b""), "linux/amd64", "nothing");
        assert!(is_static(&tiny(62, 2, 1, b"")));
    }

    #[test]
    fn a_static_pie_passes() {
        let nothing_needed = [0_u64, 0].map(u64::to_le_bytes).concat();
        check_finds(&tiny(183, 3, 2, &nothing_needed), "linux/arm64", "nothing");
    }

    #[test]
    fn another_machine_is_named() {
        check_finds(&tiny(62, 2, 1, b""), "linux/arm64", "machine: expected 183, found 62");
    }

    #[test]
    fn another_class_is_named() {
        check_finds(&tiny(3, 2, 1, b""), "linux/386", "class in bits: expected 32, found 64");
    }

    #[test]
    fn another_byte_order_is_named() {
        let expected = "byte order: expected big-endian, found little-endian";
        check_finds(&tiny(22, 2, 1, b""), "linux/s390x", expected);
    }

    #[test]
    fn an_interpreter_is_named() {
        let bytes = tiny(62, 3, 3, b"/lib64/ld-linux-x86-64.so.2\0");
        let expected = "interpreter: expected none, found /lib64/ld-linux-x86-64.so.2";
        check_finds(&bytes, "linux/amd64", expected);
        assert!(!is_static(&bytes));
    }

    #[test]
    fn a_needed_library_is_counted() {
        let needed = [1_u64, 0, 0, 0].map(u64::to_le_bytes).concat();
        let expected = "shared libraries: expected 0, found 1";
        check_finds(&tiny(62, 3, 2, &needed), "linux/amd64", expected);
    }

    #[test]
    fn an_object_file_is_no_program() {
        let expected = "type: expected a program (2 or 3), found 1";
        check_finds(&tiny(62, 1, 1, b""), "linux/amd64", expected);
    }

    #[test]
    fn a_text_is_no_elf_file() {
        let error = check(b"#!/bin/sh\necho it works\n", "linux/386".parse().unwrap());
        assert!(error.unwrap_err().to_string().starts_with("it is no ELF file"));
    }

    /// A 32-bit ARM file with one section: attributes that name this `Tag_CPU_arch`.
    fn arm(cpu: u8) -> Vec<u8> {
        let mut attributes = b"A\x19\0\0\0aeabi\0\x01\x0f\0\0\0\x432.09\0\x06".to_vec();
        attributes.extend([cpu, 8, 1]);
        let mut bytes = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x28\0".to_vec();
        bytes.extend([1_u32, 0, 0, 52, 0].map(u32::to_le_bytes).concat());
        bytes.extend([52_u16, 32, 0, 40, 2, 0].map(u16::to_le_bytes).concat());
        bytes.extend([0; 40]);
        let size = u32::try_from(attributes.len()).unwrap();
        let section = [0, elf::SHT_ARM_ATTRIBUTES.0, 0, 0, 132, size, 0, 0, 1, 0];
        bytes.extend(section.map(u32::to_le_bytes).concat());
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn an_instruction_of_armv7_is_not_for_armv6() {
        let expected = "processor: expected at most ARMv6, found number 10";
        check_finds(&arm(10), "linux/arm/v6", expected);
        check_finds(&arm(10), "linux/arm/v7", "nothing");
        check_finds(&arm(6), "linux/arm/v6", "nothing");
    }
}
