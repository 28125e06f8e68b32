//! What a binary says of its crates: the section that cargo-auditable invented and scanners read
//! (<https://github.com/rust-secure-code/cargo-auditable/blob/master/PARSING.md>).

use std::io::Write;

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use object::{Endian as _, Endianness, FileKind};
use serde::Serialize;

use super::crates::{Crate, Source};

const SECTION: &[u8] = b".dep-v0\0";

/// `SHT_PROGBITS`: bytes that mean something to their reader only.
const PROGBITS: u32 = 1;

#[derive(Serialize)]
struct Packages<'a> {
    packages: Vec<Package<'a>>,
}

#[derive(Serialize)]
struct Package<'a> {
    name: &'a str,
    version: &'a str,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "<[usize]>::is_empty")]
    dependencies: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<bool>,
}

/// `program` with a section that lists `crates`, whose first is the program itself. The section
/// is loaded by nobody: it costs its bytes in the file, and nothing in memory.
pub fn tell(program: &[u8], crates: &[Crate]) -> Result<Vec<u8>> {
    with_section(program, &list(crates)?)
}

fn list(crates: &[Crate]) -> Result<Vec<u8>> {
    let packages = crates.iter().enumerate().map(package).collect();
    let json = serde_json::to_vec(&Packages { packages }).context("cannot write JSON")?;
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&json).and_then(|()| packed.finish()).context("cannot compress the list")
}

fn package((at, it): (usize, &Crate)) -> Package<'_> {
    Package {
        name: &it.name,
        version: &it.version,
        source: if it.source == Source::Registry { "crates.io" } else { "local" },
        kind: it.is_build.then_some("build"),
        dependencies: &it.dependencies,
        root: (at == 0).then_some(true),
    }
}

/// Where an ELF file of one class has what is changed here, and how long that is, in bytes
/// (<https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.sheader.html>).
struct Class {
    /// Of an address.
    word: usize,
    /// Of a section's header.
    entry: usize,
    /// Of the file header's `e_shoff`, `e_shnum` and `e_shstrndx`.
    header: [usize; 3],
    /// Of a section header's `sh_offset`, `sh_size` and `sh_addralign`.
    section: [usize; 3],
}

const ELF32: Class =
    Class { word: 4, entry: 40, header: [0x20, 0x30, 0x32], section: [16, 20, 32] };
const ELF64: Class =
    Class { word: 8, entry: 64, header: [0x28, 0x3c, 0x3e], section: [24, 32, 48] };

/// `program` with `content` as one more section. All that was there stays where it was but for the
/// names and headers of sections, which linkers put at the end.
fn with_section(program: &[u8], content: &[u8]) -> Result<Vec<u8>> {
    let class = match FileKind::parse(program)? {
        FileKind::Elf32 => ELF32,
        FileKind::Elf64 => ELF64,
        other => anyhow::bail!("it is {other:?}"),
    };
    let numbers = Numbers { endian: endian(program) };
    let [table_at, count_at, names_at] = class.header;
    let table = numbers.get(program, table_at, class.word)?;
    let count = numbers.get(program, count_at, 2)?;
    let names = table + numbers.get(program, names_at, 2)? * class.entry;
    ensure!(table + count * class.entry == program.len(), "its section headers are not at its end");
    let [offset_at, size_at, align_at] = class.section;
    let start = numbers.get(program, names + offset_at, class.word)?;
    let size = numbers.get(program, names + size_at, class.word)?;
    ensure!(start + size <= table && table < start + size + 8, "its section names are elsewhere");

    let mut headers = program[table..].to_vec();
    let mut file = program[..start + size].to_vec();
    file.extend(SECTION);
    let mut header = vec![0; class.entry];
    numbers.put(&mut header, 0, 4, size);
    numbers.put(&mut header, 4, 4, PROGBITS as usize);
    numbers.put(&mut header, offset_at, class.word, file.len());
    numbers.put(&mut header, size_at, class.word, content.len());
    numbers.put(&mut header, align_at, class.word, 1);
    file.extend(content);
    file.resize(file.len().next_multiple_of(class.word), 0);

    numbers.put(&mut headers, names - table + size_at, class.word, size + SECTION.len());
    let end = file.len();
    numbers.put(&mut file, table_at, class.word, end);
    numbers.put(&mut file, count_at, 2, count + 1);
    file.extend(headers);
    file.extend(header);
    Ok(file)
}

fn endian(program: &[u8]) -> Endianness {
    // `EI_DATA`; a file without it is no ELF file, which was asked before.
    if program.get(5) == Some(&2) { Endianness::Big } else { Endianness::Little }
}

/// Numbers as the file writes them.
struct Numbers {
    endian: Endianness,
}

impl Numbers {
    fn get(&self, bytes: &[u8], at: usize, length: usize) -> Result<usize> {
        let bytes = bytes.get(at..at + length).context("it is cut off")?;
        let number = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
        Ok(if self.endian.is_big_endian() {
            bytes.iter().fold(0, number)
        } else {
            bytes.iter().rev().fold(0, number)
        })
    }

    /// Writes `number`, which fits, at a place that is there.
    fn put(&self, bytes: &mut [u8], at: usize, length: usize, number: usize) {
        let little = (number as u64).to_le_bytes();
        bytes[at..at + length].copy_from_slice(&little[..length]);
        if self.endian.is_big_endian() {
            bytes[at..at + length].reverse();
        }
    }
}
